"""The state that connections share: which unproven connection makes room for a new one."""

from __future__ import annotations

from cryostore.server.http.shared_state import GRACE_SECONDS, SharedState, UnprovenConnections


class Connection:
    """A connection that notes whether it was closed."""

    def __init__(self, *, is_answering=False):
        self.is_answering = is_answering
        self.closed = False

    def abort(self):
        self.closed = True


def opened(*connections):
    """Unproven connections that were opened one second after the other, from second 0 on."""
    unproven = UnprovenConnections()
    for second, connection in enumerate(connections):
        unproven.add(connection, float(second))
    return unproven


def test_the_oldest_makes_room():
    old, young = Connection(), Connection()
    unproven = opened(old, young)
    assert unproven.make_room(10.0)
    assert (old.closed, young.closed) == (True, False)
    assert unproven.make_room(10.0)
    assert young.closed
    assert not unproven.make_room(10.0)


def test_one_without_a_request_under_way_makes_room_first():
    answering, idle = Connection(is_answering=True), Connection()
    unproven = opened(answering, idle)
    assert unproven.make_room(10.0)
    assert (answering.closed, idle.closed) == (False, True)
    assert unproven.make_room(10.0)
    assert answering.closed


def test_a_connection_has_a_grace_period():
    connection = Connection()
    unproven = opened(connection)
    assert unproven.can_make_room
    assert not unproven.make_room(GRACE_SECONDS - 0.1)
    assert not connection.closed
    assert unproven.make_room(GRACE_SECONDS)


def test_a_proven_connection_makes_no_room():
    proven = Connection()
    unproven = opened(proven)
    unproven.discard(proven)
    unproven.discard(proven)
    assert not unproven.can_make_room
    assert not unproven.make_room(10.0)
    assert not proven.closed


def test_each_server_has_a_state_of_its_own():
    one, other = SharedState(), SharedState()
    one.draining = True
    one.unproven.add(Connection(), 0.0)
    assert not other.draining
    assert not other.unproven.can_make_room
