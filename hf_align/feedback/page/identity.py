"""Who answers: the logged-in user, else the name in the page's address, else the page's default."""

from __future__ import annotations

import getpass
import hmac
import re
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path

from hf_align.errors import UserError
from hf_align.files import read_text

LONGEST_NAME = 64
NAME = re.compile(r"\w[\w .@+-]*", re.UNICODE)
SHORTEST_PASSWORD = 8


def check_name(name: str) -> str:
    """The name without surrounding space, if it can be one.

    Args:
        name: Name of an annotator.

    Raises:
        UserError: It is empty, longer than 64 characters, or has characters other than letters, digits, spaces and
            `_ . @ + -`.
    """
    name = name.strip()
    if len(name) > LONGEST_NAME or not NAME.fullmatch(name):
        raise UserError(
            f"the annotator's name {name[:LONGEST_NAME]!r} can't be used; take 1 to {LONGEST_NAME} letters, digits, "
            "spaces or _ . @ + - and begin with a letter or digit"
        )
    return name


def identify(username: str | None, asked: str | None, default: str | None, *, login: bool) -> str:
    """Name of the person who sent a request.

    Args:
        username: User who is logged in.
        asked: Value of `annotator` in the page's address; counts only without a login.
        default: Name for everybody else; None: there is none.
        login: Whether the page has a login.

    Raises:
        UserError: Nobody is logged in, or the name can't be used.
    """
    if login:
        if not username:
            raise UserError("you are not logged in; reload the page")
        return check_name(username)
    if asked:
        return check_name(asked)
    if default is None:
        raise UserError("add your name to the page's address: ?annotator=NAME")
    return check_name(default)


def machine_user() -> str | None:
    """Login name on this machine, if it can be an annotator's."""
    try:
        return check_name(getpass.getuser())
    except (OSError, KeyError, ImportError, UserError):
        return None


class Logins:
    """Names and passwords of the people who may open the page.

    Args:
        passwords: Passwords by name.

    Raises:
        UserError: A name can't be used or a password is shorter than 8 characters.
    """

    def __init__(self, passwords: Mapping[str, str]) -> None:
        self._passwords = {check_name(name): password for name, password in passwords.items()}
        for name, password in self._passwords.items():
            if len(password) < SHORTEST_PASSWORD:
                raise UserError(f"the password of {name!r} is too short; take {SHORTEST_PASSWORD} characters or more")

    @classmethod
    def read(cls, path: str | Path) -> Logins:
        """Logins of a file with one `name:password` on each line; empty lines and lines that begin with # are left out.

        Raises:
            UserError: The file can't be read, or a line is wrong.
        """
        lines = read_text(path, "users").splitlines()
        passwords: dict[str, str] = {}
        for number, line in enumerate(lines, 1):
            if not line.strip() or line.startswith("#"):
                continue
            name, colon, password = line.partition(":")
            if not colon or name.strip() in passwords:
                raise UserError(f"{path}, line {number}: write each user once, as name:password")
            passwords[name.strip()] = password
        if not passwords:
            raise UserError(f"the users file {path} is empty; write one name:password a line")
        return cls(passwords)

    @classmethod
    def make(cls, names: Iterable[str]) -> tuple[Logins, dict[str, str]]:
        """Logins with new random passwords, and the passwords by name, to hand out once."""
        passwords = {check_name(name): secrets.token_urlsafe(12) for name in names}
        return cls(passwords), passwords

    def check(self, name: str, password: str) -> bool:
        """Whether the password is that of the name; takes as long for an unknown name."""
        wanted = self._passwords.get(name)
        same = hmac.compare_digest((wanted or secrets.token_urlsafe(12)).encode(), password.encode())
        return same and wanted is not None
