"""The pool under stress: more threads than cores, many callers at once, tasks that fail. Nothing is lost, done twice, or waited for in vain.

Tasks that sleep need no core, so threads of a machine with sixteen cores are played on any machine.
"""
import gc
import os
import random
import subprocess
import sys
import threading
import time
import weakref
from collections import Counter

import numpy as np
import pytest

from cs231n_lit import _threads
from cs231n_lit._threads import _cut, parallel, set_num_threads

pytestmark = pytest.mark.skipif(sys.platform == "emscripten", reason="no threads")


@pytest.fixture(autouse=True)
def restored():
    before = _threads.get_num_threads()
    yield
    set_num_threads(before)


def within(seconds, call):
    "The result of a call that must not take longer."
    answer = []
    thread = threading.Thread(target=lambda: answer.append(call()), daemon=True)
    thread.start()
    thread.join(seconds)
    assert answer, f"no answer within {seconds} seconds"
    return answer[0]


def makespan(count, grain, seconds, threads, late=0.):
    "The model of the page about threads."
    free = [0.] + [late] * (min(threads, count // grain) - 1)
    for n0, n1 in _cut(count, len(free), grain):
        who = free.index(min(free))
        free[who] += seconds * (n1 - n0) / count
    return max(free)


@pytest.mark.parametrize("threads", range(2, 17))
def test_every_item_is_done_once(threads):
    rng = random.Random(threads)
    def many():
        for _ in range(40):
            set_num_threads(threads)
            count, grain = rng.randrange(1, 3000), rng.choice([1, 1, 2, 7, 64])
            done, slots = np.zeros(count, int), set()
            def task(n0, n1, slot):
                done[n0:n1] += 1
                slots.add(slot)
                if rng.random() < .1: time.sleep(1e-4)
            parallel(task, count, grain)
            assert (done == 1).all() and max(slots) < max(1, min(threads, count // grain))
        return True
    assert within(120, many)


def test_callers_side_by_side():
    "Six callers, sixteen threads each, on one pool: each gets all of its own work done, and nobody else's."
    set_num_threads(16)
    counts = [Counter() for _ in range(6)]
    def caller(mine):
        for k in range(30): parallel(lambda n0, n1, slot: mine.update(range(1000 * k + n0, 1000 * k + n1)), 50 + k)
        return True
    def all_of_them():
        threads = [threading.Thread(target=caller, args=(mine,), daemon=True) for mine in counts]
        for t in threads: t.start()
        for t in threads: t.join()
        return True
    assert within(120, all_of_them)
    expected = Counter(1000 * k + n for k in range(30) for n in range(50 + k))
    assert all(mine == expected for mine in counts)


def test_a_call_within_a_call():
    "Helpers that call themselves do the inner work alone if nobody is free: no two wait for each other."
    set_num_threads(8)
    done = Counter()
    def outer(n0, n1, slot):
        for n in range(n0, n1): parallel(lambda m0, m1, s: done.update((n, m) for m in range(m0, m1)), 20)
    assert within(60, lambda: parallel(outer, 32) or True)
    assert set(done.values()) == {1} and len(done) == 32 * 20


@pytest.mark.parametrize("threads", [2, 5, 16])
def test_errors_reach_the_caller_and_the_pool_goes_on(threads):
    set_num_threads(threads)
    def fails(n0, n1, slot):
        time.sleep(1e-3)
        if n1 > 50: raise ArithmeticError("item 50")
    def often():
        for _ in range(20):
            with pytest.raises(ArithmeticError, match="item 50"): parallel(fails, 100)
        done = []
        parallel(lambda n0, n1, slot: done.extend(range(n0, n1)), 100)
        return sorted(done)
    assert within(60, often) == list(range(100))


@pytest.mark.parametrize("threads", [2, 4, 8, 16])
def test_time_and_fairness_with_a_core_for_each_thread(threads):
    "Each thread gets a share, and all end together: in the time that the model says. Of several tries the best, as others use this machine."
    def attempt():
        set_num_threads(threads)
        spans = []
        def task(n0, n1, slot):
            time.sleep(.004 * (n1 - n0))
            spans.append((slot, n1 - n0))
        start = time.perf_counter()
        parallel(task, 64)
        return time.perf_counter() - start, spans
    tries = [attempt() for _ in range(6)]
    taken, spans = min(tries, key=lambda t: t[0])
    items = Counter()
    for slot, n in spans: items[slot] += n
    assert .99 < taken / makespan(64, 1, .256, threads) < 1.6  # measured: 1.01 to 1.15, on a busy machine
    assert len(items) == threads and min(items.values()) >= 64 / threads / 3


def test_a_helper_that_hangs_on_holds_up_nobody_else_and_no_memory():
    "A helper is kept in one caller's task. Others get their work done meanwhile, and what they worked on is let go."
    set_num_threads(2)
    _threads._new_pool()  # one helper
    go_on, taken = threading.Event(), threading.Event()
    def slow(n0, n1, slot):
        if slot: taken.set(); go_on.wait(60)
        else: taken.wait(60)
    caller = threading.Thread(target=lambda: parallel(slow, 8), daemon=True)
    caller.start()
    assert taken.wait(60)
    class Array: pass
    kept = []
    def work():
        a = Array()
        kept.append(weakref.ref(a))
        done = []
        parallel(lambda n0, n1, slot: done.extend([a] * (n1 - n0)), 10)
        return len(done)
    try:
        assert [within(60, work) for _ in range(20)] == [10] * 20
        gc.collect()
        assert [r for r in kept if r() is not None] == []
    finally: go_on.set()
    caller.join(60)
    assert not caller.is_alive()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_while_sixteen_threads_are_at_work():
    code = """
import os, threading, time
from cs231n_lit._threads import parallel, set_num_threads
set_num_threads(16)
threading.Thread(target=lambda: [parallel(lambda n0, n1, s: time.sleep(1e-3), 64) for _ in range(50)], daemon=True).start()
for _ in range(5):
    time.sleep(.01)
    child = os.fork()
    if not child:
        done = []
        parallel(lambda n0, n1, s: done.extend(range(n0, n1)), 200)
        os._exit(sorted(done) != list(range(200)))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""
    subprocess.run([sys.executable, "-W", "ignore::DeprecationWarning", "-c", code], check=True, timeout=100)
