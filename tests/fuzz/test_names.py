"""Object names of any Unicode over HTTP: unchanged, and listed in the byte order of their UTF-8 (B.10, B.11)."""

from __future__ import annotations

from bisect import bisect_left

from hypothesis import given, settings
from hypothesis import strategies as st

from cryostore.client.pages import items
from cryostore.model.objects import ListObjects
from support.requests.api import Api

# Runs of one character make long names, which random text hardly ever is.
letters = st.characters(exclude_categories=["Cs", "Cc"])
words = st.sampled_from(
    ["a/b", "%2F", "x/complete", "x/put-object", "put-object", "//", "/", "..", "%", "+", " ", "?", "#"]
)
runs = st.tuples(letters, st.integers(2, 1024)).map(lambda run: run[0] * run[1])
names = (
    st.lists(letters | letters | words | runs, min_size=1, max_size=8)
    .map("".join)
    .map(lambda name: name.encode()[:1024].decode(errors="ignore"))
    .filter(lambda name: name not in ("", ".", ".."))
)
filters = st.text(letters, max_size=3)


@settings(max_examples=max(20, settings.default.max_examples // 5))
@given(written=st.lists(names, min_size=1, max_size=12, unique=True), data=st.data())
def test_names_are_kept_and_listed_in_byte_order(server, client, written, data):
    """With any start name, prefix and page size."""
    api = Api(client, server.data_dir)
    job = api.running_job()
    for number, name in enumerate(written):
        api.put(job, name, b"%d" % number)
    expected = sorted(written, key=str.encode)
    assert api.names(job) == expected
    assert api.read(job) == {name: b"%d" % number for number, name in enumerate(written)}

    one = data.draw(st.sampled_from(written), label="name")
    cut = one.encode()[: data.draw(st.integers(0, 1024), label="cut")].decode(errors="ignore")
    start = data.draw(st.sampled_from([one, cut, None]) | filters, label="start")
    prefix = data.draw(st.sampled_from([cut, one, None]) | filters, label="prefix")
    size = data.draw(st.integers(1, 5), label="page size")
    listing = ListObjects(
        storage_job_id=job, starting_object_name=start, starting_object_prefix=prefix, max_results=size
    )
    found = [one.name for one in items(client, listing)]
    rest = expected[bisect_left([name.encode() for name in expected], (start or "").encode()) :]
    assert found == [name for name in rest if name.encode().startswith((prefix or "").encode())]
    for name in written:
        api.delete(job, name)
    assert api.names(job) == []
