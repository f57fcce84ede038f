"""Several algorithms one after another on one backbone, as one resumable run."""
