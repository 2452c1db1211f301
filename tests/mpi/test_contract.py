"""Real jobs in trouble: every one ends soon, with words that say what happened."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import subprocess
import sys
import textwrap
import time

import jobs
import pytest

HASTE = {"RONDE_STALL_WARNING": "0.3", "RONDE_STALL_TIMEOUT": "2"}


@pytest.mark.parametrize(
    ("case", "usual", "odd"),
    [
        ("kind", "allreduce (float64, shape (1000,)", "allgather (float64, shape (1000,)"),
        ("sizes", "shape (1310720,)", "shape (655360,)"),
        ("group", "float64[6]", "float64[5]"),
        ("members", "ranks [0, 1]", "ranks [1, 2]"),
        ("settings", "no setting changed", "RONDE_SEGMENT_BYTES=4096"),
        ("leaves", "allreduce (float64", "the end of the program"),
    ],
)
def test_a_difference_raises_on_all_ranks(case: str, usual: str, odd: str) -> None:
    job = jobs.run(4, "trouble.py", case)
    assert job.status != 0
    assert "MismatchError: the ranks made different calls" in job.output
    # Every rank reports. The launcher may mix the lines of two of them, but not of all.
    wanted = ("ranks 0,2-3:", "rank 1:", usual, odd, "trouble.py:")
    reports = job.output.split("MismatchError: ")[1:]
    assert any(all(text in report for text in wanted) for report in reports), job.output
    # The launcher may end the job before the last rank has written its error.
    assert len(re.findall(r"rank \d ends (?:the job|too):", job.output)) >= 2, job.output
    assert job.output.count("Traceback") <= 1 + (case == "leaves"), job.output


def test_a_mismatch_that_is_caught_leaves_ronde_usable() -> None:
    job = jobs.run(3, "trouble.py", "caught")
    assert job.status == 0, job.output
    assert job.output.count("goes on") == 3


def test_an_exception_on_one_rank_ends_the_job_with_its_traceback() -> None:
    job = jobs.run(4, "trouble.py", "raises")
    assert job.status != 0
    assert "rank 1 ends the job:\nTraceback" in job.output
    assert "ValueError: something of the user's" in job.output
    # The others say the same in a line each.
    assert job.output.count("Traceback") == 1
    assert "ends too: RankFailedError: rank 1 gave up: ValueError: something" in job.output


def test_an_exception_on_all_ranks_is_shown_once() -> None:
    job = jobs.run(4, "trouble.py", "all_raise")
    assert job.status != 0
    assert job.output.count("Traceback") == 1, job.output
    assert "rank 0 ends the job:\nTraceback" in job.output
    assert "rank 1 ends too: NotImplementedError\n" in job.output


def test_a_rank_that_never_comes_is_named() -> None:
    job = jobs.run(3, "trouble.py", "late", **HASTE)
    assert job.status != 0
    assert "has waited" in job.output
    assert "allreduce 'gradient'" in job.output
    assert re.search(r"\n  1 +in no call", job.output)
    assert re.search(r"\n  0,2 +in the call +0\.\d s +\S*trouble.py:\d+\n", job.output), job.output
    assert "StalledError" in job.output


def test_a_rank_that_never_initialises_is_told_of() -> None:
    job = jobs.run(3, "trouble.py", "never_inits", **HASTE)
    assert job.status != 0
    assert "in ronde.init: not all 3 ranks have called it" in job.output
    assert "StalledError" in job.output


def test_a_rank_that_never_starts_mpi_is_told_of() -> None:
    job = jobs.run(3, "trouble.py", "never_starts", **HASTE)
    assert job.status != 0
    assert "in MPI_Init: not all ranks of the job have started MPI" in job.output
    assert "gave up after 2.0 s" in job.output


def test_sets_that_cross_are_named() -> None:
    job = jobs.run(4, "trouble.py", "crossing", **HASTE)
    assert job.status != 0
    assert re.search(r"\n  1 +in barrier on process set 2 +\d", job.output)
    assert re.search(r"\n  0 +in barrier on process set 1 +\d", job.output)


def test_init_after_a_failure_begins_anew() -> None:
    job = jobs.run(3, "trouble.py", "recovers", **HASTE)
    assert job.status == 0, job.output
    assert job.output.count("goes on") == 3


def test_a_failure_that_was_recovered_from_is_forgotten() -> None:
    job = jobs.run(3, "trouble.py", "recovers_and_shuts_down", **HASTE)
    assert job.status == 0, job.output
    assert job.output.count("ended") == 3


def test_a_shutdown_that_others_do_not_make_ends_nothing() -> None:
    job = jobs.run(3, "trouble.py", "shuts_down_early")
    assert job.status == 0, job.output
    assert job.output.count("goes on") == 3


def test_an_exception_ends_the_job_though_output_is_closed() -> None:
    job = jobs.run(3, "trouble.py", "closed_output")
    assert job.status != 0


def test_the_difference_is_shown_in_long_calls_too() -> None:
    job = jobs.run(3, "trouble.py", "long_groups")
    report = job.output.split("MismatchError: ")[1]
    assert "float64[155]" in report and "float64[7, 7, 7]" in report
    assert "trouble.py:" in report


def test_a_rank_without_memory_says_so() -> None:
    job = jobs.run(3, "trouble.py", "no_memory")
    assert job.status != 0
    assert "MemoryError" in job.output
    assert "rank 1 ends the job" in job.output


def test_a_failure_is_heard_by_all_threads() -> None:
    job = jobs.run(3, "trouble.py", "two_threads")
    assert job.status != 0
    assert "ValueError: something of the user's" in job.output
    assert "reported by 2 threads" in job.output


def test_a_job_that_was_suspended_goes_on() -> None:
    with jobs.started(2, "trouble.py", "suspended", **HASTE) as process:
        assert process.stdout is not None
        while "under way" not in process.stdout.readline():
            assert process.poll() is None
        ranks = [pid for pid in jobs.ranks_of(process.pid) if "trouble.py" in jobs.command_of(pid)]
        for number in (signal.SIGSTOP, signal.SIGCONT):
            for pid in ranks:
                os.kill(pid, number)
            time.sleep(3)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert output.count("goes on") == 2


def test_ctrl_c_on_one_rank_ends_the_call_on_all() -> None:
    job = jobs.run(3, "trouble.py", "interrupted")
    assert job.status != 0
    assert "KeyboardInterrupt" in job.output
    assert "rank 1 gave up: KeyboardInterrupt in allreduce 'gradient'" in job.output


def test_a_call_from_a_handler_during_a_call_is_refused_at_once() -> None:
    job = jobs.run(3, "trouble.py", "called_by_a_handler")
    assert job.status == 0, job.output


@pytest.mark.parametrize("memory", ["0", "1"], ids=["messages", "memory"])
@pytest.mark.parametrize("case", ["removes_under_calls", "shuts_down_under_calls", "daemons"])
def test_ends_under_calls_of_other_threads_are_in_order(case: str, memory: str) -> None:
    job = jobs.run(3, "trouble.py", case, RONDE_SHARED_MEMORY=memory)
    assert job.status == 0, job.output
    assert "Error" not in job.output.replace("MismatchError", ""), job.output


def test_a_rank_that_is_stuck_at_the_end_is_warned_of_and_waited_for() -> None:
    job = jobs.run(3, "trouble.py", "stuck_at_the_end", **HASTE)
    assert job.status == 0, job.output
    # The first that waits says so several times, longer than the timeout.
    assert job.output.count("rank 0 has waited") >= 2
    assert re.search(r"\n  1 +in no call", job.output)


def test_a_rank_that_leaves_is_named_to_those_who_wait_for_it_in_a_set() -> None:
    job = jobs.run(3, "trouble.py", "leaves_a_set", timeout=50)  # the warning comes after 60 s
    assert job.status == 0, job.output
    assert "raised: rank 1 has left: shutdown, or the end of the program" in job.output


def test_a_rank_that_has_ended_waits_for_those_that_go_on_without_it() -> None:
    job = jobs.run(3, "trouble.py", "outlives")
    assert job.status == 0, job.output
    assert job.output.count("rank 1 has finished, and others still work") == 1


@pytest.mark.parametrize("victim", [0, 3])
def test_a_killed_rank_ends_the_job(victim: int) -> None:
    with jobs.started(4, "trouble.py", "killed") as process:
        assert process.stdout is not None
        while "under way" not in process.stdout.readline():
            assert process.poll() is None
        below = jobs.ranks_of(process.pid)
        ranks = [pid for pid in below if "trouble.py" in jobs.command_of(pid)]
        assert len(ranks) == 4
        os.kill(sorted(ranks)[victim], signal.SIGKILL)
        left = jobs.wait_until_gone([process.pid, *below], 10)
        assert not left, "processes were left"
        process.communicate(timeout=10)
        assert process.returncode != 0


def test_threads_run_while_a_collective_waits() -> None:
    job = jobs.run(2, "trouble.py", "threads_run")
    assert job.status == 0, job.output
    assert "threads run" in job.output


def test_a_forked_process_is_refused_and_does_not_disturb() -> None:
    job = jobs.run(2, "trouble.py", "forked")
    assert job.status == 0, job.output
    assert job.output.count("in the child: this process was forked after ronde.init()") == 2
    assert job.output.count("and init is refused") == 2


def test_forked_processes_end_as_they_say_and_do_not_disturb() -> None:
    job = jobs.run(2, "trouble.py", "forked_and_ended")
    assert job.status == 0, job.output
    assert job.output.count("goes on") == 2


def python(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=jobs.launch.environment() | variables,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("variable", ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"])
def test_a_launcher_that_promises_more_ranks_than_mpi_sees_is_the_wrong_one(variable: str) -> None:
    # As a program sees it that the launcher of another MPI has started.
    result = python("import ronde; ronde.init()", **{variable: "8"})
    assert result.returncode != 0
    assert "launcher and library do not belong together" in result.stderr
    assert "ronde run -np 8" in result.stderr


@pytest.mark.skipif(
    not os.environ.get("OTHER_MPIRUN"),
    reason="OTHER_MPIRUN does not name the launcher of another MPI",
)
def test_the_launcher_of_another_mpi_is_told_from_the_own() -> None:
    job = jobs.run(2, "collectives.py", "2", launcher=os.environ["OTHER_MPIRUN"])
    assert job.status != 0
    # Where MPICH's library meets Open MPI's launcher it may find a server that it cannot talk to, and
    # ends by itself, before Ronde can say anything.
    refused = "launcher and library do not belong together" in job.output
    assert refused or "Fatal error in internal_Init_thread" in job.output


def test_calls_before_init_say_so() -> None:
    result = python(
        """
        import ronde
        for call in (ronde.rank, ronde.local_size, lambda: ronde.allreduce(1.0), ronde.barrier,
                     lambda: ronde.add_process_set([0])):
            try:
                call()
            except ronde.RondeError as error:
                assert "call ronde.init() first" in str(error)
            else:
                raise SystemExit("no error")
        ronde.shutdown()
        """
    )
    assert result.returncode == 0, result.stderr


def _import_and_init() -> str:
    import ronde

    try:
        ronde.init()
    except ronde.RondeError as error:
        return str(error)
    return "no error"


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_a_child_of_multiprocessing_imports_ronde_and_is_refused_by_init(method: str) -> None:
    with multiprocessing.get_context(method).Pool(1) as pool:
        assert "not a rank of the job" in pool.apply(_import_and_init)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("RONDE_CHECK", "maybe", "RONDE_CHECK='maybe' is not 0 or 1"),
        ("RONDE_SEGMENT_BYTES", "0", "is not a size like 128K"),
        ("RONDE_STALL_TIMEOUT", "-1", "must be seconds"),
        ("RONDE_SEGMENT_BYTES", "99999999999999999999", "must be 1 to 1G"),
        ("RONDE_SIMD", "abacus", "RONDE_SIMD='abacus' is not one of"),
        ("RONDE_WINDOW", "1", "must be 2 to 1024"),
        ("RONDE_ALGORITHM", "allreduce:rnig", "allreduce has"),
        ("RONDE_ALGORITHM", "alreduce:ring", "no such collective"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused_by_name(
    name: str, value: str, words: str
) -> None:
    result = python("import ronde; ronde.init()", **{name: value})
    assert result.returncode != 0
    assert words in result.stderr


def test_settings_that_contradict_each_other_are_refused() -> None:
    variables = {"RONDE_DETERMINISTIC": "1", "RONDE_ALGORITHM": "allreduce:ring"}
    result = python("import ronde; ronde.init()", **variables)
    assert result.returncode != 0
    assert "contradicts RONDE_DETERMINISTIC=1" in result.stderr


def test_equal_settings_in_other_words_are_equal() -> None:
    job = jobs.run(2, "trouble.py", "same_settings")
    assert job.status == 0, job.output


def test_a_setting_that_does_not_exist_is_warned_of() -> None:
    result = python("import ronde; ronde.init()", RONDE_SEGMENT_BITES="4")
    assert result.returncode == 0, result.stderr
    assert "did you mean RONDE_SEGMENT_BYTES?" in result.stderr


@pytest.mark.parametrize("form", ["pickle", "json", "refuse"])
def test_objects_travel_as_ronde_objects_says(form: str) -> None:
    job = jobs.run(3, "objects.py", RONDE_OBJECTS=form)
    assert job.status == 0 and "objects travel as they should" in job.output, job.output
    assert ("code of rank" in job.output) == (form == "pickle")


def test_one_rank_warns_of_a_setting_that_does_not_exist_and_suggests_only_what_is_near() -> None:
    job = jobs.run(3, "trouble.py", "kind", RONDE_CHEK="0", RONDE_HOME="/")
    assert job.output.count("Ronde knows no variable RONDE_CHEK; did you mean RONDE_CHECK?") == 1
    assert job.output.count("Ronde knows no variable RONDE_HOME\n") == 1
