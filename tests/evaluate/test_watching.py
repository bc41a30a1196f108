"""The watch over other processes: an end without farewell is told once to each, and nothing else is taken for one."""

import queue
import socket
import struct
import threading

import pytest

from jaxgrad._evaluate.processes import watching
from jaxgrad._evaluate.processes.watching import Watch

SOON, LATER = 10, 0.3  # seconds in which what should come has come, and in which what should not would have


class Process:
    """A process's watch; closed, its connections end as those of a process that has died."""

    def __init__(self, number, greeting=None, host="127.0.0.1"):
        self.died = queue.SimpleQueue()
        self.watch = Watch(number)
        self.greeting = self.watch.greeting if greeting is None else greeting
        before = set(threading.enumerate())
        self.watch.begin(host, self.greeting, self.died.put)
        (self.thread,) = set(threading.enumerate()) - before

    def nothing(self):
        with pytest.raises(queue.Empty):
            self.died.get(timeout=LATER)
        return True


@pytest.fixture
def process():
    """Makes processes, and ends them all."""
    made = []

    def make(*args, **options):
        made.append(Process(*args, **options))
        return made[-1]

    yield make
    for one in made:
        one.watch.close()
        one.thread.join(SOON)


@pytest.fixture
def three(process):
    first = process(0)
    found = [first, *(process(i, first.greeting) for i in (1, 2))]
    while list(first.watch._connections.values()).count(None) or len(first.watch._connections) < 2:
        pass
    return found


@pytest.mark.parametrize("victim", [1, 2])
def test_the_first_tells_the_others_who_has_died(three, victim):
    three[victim].watch.close()
    assert three[0].died.get(timeout=SOON) == victim
    assert three[3 - victim].died.get(timeout=SOON) == victim
    assert three[0].nothing()


def test_that_the_first_has_died_is_known_to_all(three):
    three[0].watch.close()
    assert [process.died.get(timeout=SOON) for process in three[1:]] == [0, 0]


def test_it_is_told_once(three):
    three[1].watch.close()
    three[2].watch.close()
    assert three[0].died.get(timeout=SOON) in (1, 2)
    assert three[0].nothing()


def test_after_a_farewell_an_end_is_no_death(three):
    three[1].watch.say_farewell()
    three[1].watch.close()
    assert three[0].nothing()
    three[0].watch.say_farewell()
    three[0].watch.close()
    assert three[1].nothing()
    assert three[2].nothing()


def test_a_death_is_told_to_one_that_is_done_and_waits(three):
    three[0].watch.say_farewell()
    assert three[0].nothing()  # the others have heard it, and stay
    three[1].watch.close()
    assert three[0].died.get(timeout=SOON) == 1


def test_one_that_is_done_before_the_first_has_begun_to_watch_is_known(process):
    """Its introduction and its farewell come at once."""
    first = Watch(0)
    quick = process(1, first.greeting)
    quick.watch.say_farewell()
    told = queue.SimpleQueue()
    first.begin(None, bytes(32), told.put)
    assert quick.nothing()
    first.say_farewell()
    quick.watch.close()
    with pytest.raises(queue.Empty):
        told.get(timeout=LATER)
    first.close()


def test_strangers_are_not_believed(process):
    first = process(0)
    port = watching.GREETING.unpack(first.greeting)[2]
    for said in (b"", b"x" * 20, bytes(16) + struct.pack("!I", 1), first.greeting[:16]):
        with socket.create_connection(("127.0.0.1", port)) as stranger:
            stranger.sendall(said)
    assert first.nothing()


@pytest.mark.parametrize("greeting", [bytes(32), watching.GREETING.pack(bytes(16), bytes(4), 9)])
def test_where_no_connection_can_be_made_nothing_is_told(greeting, process):
    assert process(1, greeting).nothing()


def test_the_first_announces_an_address_for_where_no_coordinator_is_given(monkeypatch, process):
    assert len(watching._own_address()) == 4
    monkeypatch.setattr(watching, "_own_address", lambda: socket.inet_aton("127.0.0.1"))
    first = process(0)
    other = process(1, first.greeting, host=None)
    first.watch.close()
    assert other.died.get(timeout=SOON) == 0
