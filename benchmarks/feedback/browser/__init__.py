"""The annotation page in a real browser, used by scripted people who reload, go back, click twice, lose the server.

`server` runs and kills the page's process, `tasks` fills a store with embedded sentences, `tab` reads and clicks one
tab, `session` draws what people do, `ledger` keeps what they did by the texts they saw and compares it with the store,
`exported` with the export. `python -m benchmarks.feedback.browser` runs sessions and sums them up.
"""
