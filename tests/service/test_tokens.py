"""Tokens cannot be forged or altered; the same secret opens them, also after a restart (B.9)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cryostore.service.tokens import Tokens

SECRET = bytes(range(32))
WORDS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)


@given(kind=WORDS, owner=WORDS, content=st.binary(max_size=100))
def test_the_same_secret_opens_a_token(kind, owner, content):
    token = Tokens(SECRET).make(kind, owner, content)
    assert Tokens(SECRET).open(kind, owner, token) == content
    assert token.isascii()
    assert not set(token) & set("+/=%")


@given(kinds=st.tuples(WORDS, WORDS), owners=st.tuples(WORDS, WORDS), content=st.binary(max_size=50))
def test_another_kind_or_owner_or_secret_opens_nothing(kinds, owners, content):
    token = Tokens(SECRET).make(kinds[0], owners[0], content)
    if (kinds[0], owners[0]) != (kinds[1], owners[1]):
        assert Tokens(SECRET).open(kinds[1], owners[1], token) is None
    assert Tokens(bytes(32)).open(kinds[0], owners[0], token) is None


@given(content=st.binary(max_size=50), place=st.integers(0, 200), letter=st.characters(max_codepoint=255))
def test_an_altered_token_opens_nothing(content, place, letter):
    tokens = Tokens(SECRET)
    token = tokens.make("kind", "owner", content)
    place %= len(token)
    altered = token[:place] + letter + token[place + 1 :]
    assert (tokens.open("kind", "owner", altered) is None) == (altered != token)
    for other in (token[:place], token + letter, letter + token):
        assert tokens.open("kind", "owner", other) is None


@given(text=st.text(max_size=60))
def test_a_random_text_is_no_token(text):
    assert Tokens(SECRET).open("kind", "owner", text) is None


def test_content_cannot_pass_as_part_of_the_owner():
    """The MAC separates owner and content."""
    tokens = Tokens(SECRET)
    assert tokens.make("a", "b", b"c")[-21:] != tokens.make("a", "bc", b"")[-21:]
