from pathlib import Path

import pytest

from hf_align.errors import UserError
from hf_align.feedback.page.identity import Logins, check_name, identify


@pytest.mark.parametrize("name", ["anna", "Änna Müller", "a.b+c@d-e_1", "李四", " anna ", "x" * 64])
def test_names_of_people_are_taken(name: str) -> None:
    assert check_name(name) == name.strip()


@pytest.mark.parametrize("name", ["", " ", "x" * 65, "<b>", "a\nb", "a/b", "a\u202eb", "-a", "a'b", "a\0"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(UserError, match=r"name .* can't be used"):
        check_name(name)


@pytest.mark.parametrize(
    ("username", "asked", "default", "login", "name"),
    [
        ("anna", "bob", "carl", True, "anna"),
        (None, "bob", "carl", False, "bob"),
        ("anna", None, "carl", False, "carl"),
        (None, "", "carl", False, "carl"),
    ],
)
def test_the_login_is_who_answers_then_the_address_then_the_default(
    username: str | None, asked: str | None, default: str | None, login: bool, name: str
) -> None:
    assert identify(username, asked, default, login=login) == name


def test_nobody_is_nobody() -> None:
    with pytest.raises(UserError, match="not logged in"):
        identify(None, "bob", "carl", login=True)
    with pytest.raises(UserError, match=r"\?annotator=NAME"):
        identify(None, None, None, login=False)


def test_a_password_opens_its_own_name_only() -> None:
    logins = Logins({"anna": "correct horse", "bob": "battery staple"})
    assert logins.check("anna", "correct horse")
    for name, password in [("anna", "battery staple"), ("carl", ""), ("anna", ""), ("", "correct horse")]:
        assert not logins.check(name, password)
    with pytest.raises(UserError, match="'bob' is too short"):
        Logins({"bob": "1234567"})


def test_made_passwords_differ_and_open() -> None:
    logins, passwords = Logins.make(["anna", "bob"])
    assert len({*passwords.values()}) == 2
    assert all(logins.check(name, password) for name, password in passwords.items())


def test_users_are_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "users.txt"
    path.write_text("# people\nanna:with:colon 1\n\nbob:battery staple\n", encoding="utf-8")
    assert Logins.read(path).check("anna", "with:colon 1")
    for text, message in [
        ("anna", "line 1: .* name:password"),
        ("a:12345678\na:12345678", "line 2"),
        ("#", "is empty"),
    ]:
        path.write_text(text, encoding="utf-8")
        with pytest.raises(UserError, match=message):
            Logins.read(path)
    with pytest.raises(UserError, match="users: there is no file"):
        Logins.read(tmp_path / "none.txt")
