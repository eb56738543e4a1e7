"""Ctrl-C and SIGTERM: the first is a request, the next Ctrl-C quits at once, and the handlers are put back."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from trueup.system import interrupt
from trueup.system.interrupt import InterruptGuard, StopRequested


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_a_request(number: signal.Signals) -> None:
    said: list[str] = []
    before = signal.getsignal(number)
    with InterruptGuard(said.append) as guard:
        guard.check()
        os.kill(os.getpid(), number)
        time.sleep(0.01)
        assert guard.requested
        with pytest.raises(StopRequested):
            guard.check()
    assert said == ["stopping after this step and saving; press Ctrl-C again to quit at once"]
    assert signal.getsignal(number) is before


def _interrupt_twice() -> None:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.01)


def test_a_later_ctrl_c_quits_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupt, "_REPEAT_SECONDS", 0.01)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), InterruptGuard(lambda text: None):
        _interrupt_twice()
    assert signal.getsignal(signal.SIGINT) is before


def test_the_same_ctrl_c_passed_on_by_a_supervisor_is_one_request() -> None:
    with InterruptGuard(lambda text: None) as guard:
        _interrupt_twice()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
    assert guard.requested


def test_repeated_sigterm_keeps_saving(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupt, "_REPEAT_SECONDS", 0.0)
    with InterruptGuard(lambda text: None) as guard:
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)
    assert guard.requested


def test_off_the_main_thread_it_does_nothing() -> None:
    before = signal.getsignal(signal.SIGINT)
    seen: list[object] = []

    def work() -> None:
        with InterruptGuard() as guard:
            guard.check()
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]


def test_an_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with InterruptGuard() as guard:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)
            assert not guard.requested
    finally:
        signal.signal(signal.SIGINT, before)


def test_guards_nest() -> None:
    with InterruptGuard(lambda text: None) as outer:
        with InterruptGuard(lambda text: None) as inner:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)
        assert inner.requested
        assert not outer.requested
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
        assert outer.requested


def test_a_signal_in_the_middle_of_a_write_is_still_announced(capfd: pytest.CaptureFixture[str]) -> None:
    def busy(text: str) -> None:
        raise RuntimeError("reentrant call inside <_io.BufferedWriter>")

    with InterruptGuard(busy) as guard:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
    assert guard.requested
    assert "press Ctrl-C again" in capfd.readouterr().err
