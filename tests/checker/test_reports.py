"""A judgement as text and as a picture, and histories that are judged again from the command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from checker import page, report, timeline
from checker.__main__ import main
from checker.history import History, Setup
from checker.judge import Outcome, judge
from checker.spans import SECOND
from checker.stories import NODES, START, Story, at, ticking

FOLDER = Path(report.__file__).parent
REST = "0 early, 0 late, 0 lost with a reason and 0 without"
TWICE = "on a at 08:02:00.050 (pid 11), a at 08:02:00.400 (pid 15)"
SVG = "{http://www.w3.org/2000/svg}"


def broken() -> Story:
    """Tell of one run that was missed and one that was doubled."""
    story = ticking([80]).start(120, after=0.4).fault("kill-worker", 78, 79, "a")
    story.lines[0] = Setup(began=START, nodes=NODES, title="two bugs", seed=7, command="tox -e soak -- --seed 7")
    return story


def test_a_report_says_what_is_wrong_where_and_how_to_see_it_again() -> None:
    text = report.text(broken().judge())
    assert text.splitlines() == [
        "INVALID: two bugs",
        "",
        f"15 due: 14 met, 1 missed, 1 doubled, {REST}; 2 faults of 2 kinds; latest start 0.050 s",
        "",
        "missed: job tick, due 08:01:20.000: due on 1 of a, b; there is nothing: no start and no record",
        "    near kill-worker of a at 08:01:18.000 to 08:01:19.000",
        f"doubled: job tick, due 08:02:00.000, {at(120)}-a-0123abcd: started 2 times: {TWICE}",
        "",
        "job   due  met  missed  doubled  early  late  lost  unexplained  skipped   latest",
        "tick   15   14       1        1      0     0     0            0        0  0.050 s",
        "",
        "fault        due  met  missed  doubled  early  late  lost  unexplained  skipped   latest  times  recovery",
        "kill-server    2    2       0        0      0     0     0            0        0  0.050 s      1   0.000 s",
        "kill-worker    1    0       1        0      0     0     0            0        0  0.000 s      1   2.000 s",
        "(none)        12   12       0        1      0     0     0            0        0  0.050 s      0   0.000 s",
        "",
        "again: tox -e soak -- --seed 7  (seed 7)",
    ]


def test_a_report_says_why_nothing_is_known() -> None:
    text = report.text(judge(History([])))
    assert text.startswith("UNKNOWN\n")
    assert "unknown, because there was no fault\n" in text


def test_one_line_says_what_is_wrong_or_not_known() -> None:
    assert report.brief(broken().judge()) == (
        "INVALID: missed: job tick, due 08:01:20.000: due on 1 of a, b; there is nothing: no start and no record | "
        f"doubled: job tick, due 08:02:00.000, {at(120)}-a-0123abcd: started 2 times: {TWICE}"
    )
    assert report.brief(judge(History([]))).endswith(" | nothing was due that had to happen | there was no fault")


def test_a_long_list_is_cut() -> None:
    story = Story().put(schedule="* * * * * *").fault("kill-server", 5)
    assert f"... and {len(story.judge().violations) - report.MOST} more" in report.text(story.judge())
    assert f"| ... and {len(story.judge().violations) - report.FEW} more" in report.brief(story.judge())


def drawing(story: Story, **options: int) -> ET.Element:
    judgement = story.judge()
    return ET.fromstring(timeline.svg(judgement, timeline.window(judgement, **options)))


def titles(root: ET.Element) -> list[str]:
    return [element.text or "" for element in root.iter(f"{SVG}title")]


def test_a_picture_has_every_target_every_run_and_every_fault() -> None:
    told = titles(drawing(broken()))
    assert sum(title.startswith("due ") for title in told) == 17  # the first and the last are optional
    assert sum(", attempt 1: began " in title for title in told) == 15
    assert "kill-worker of a at 08:01:18.000 to 08:01:19.000" in told
    assert "due 08:01:20.000, required; missed" in told
    assert any(title.startswith("doubled: job tick") for title in told)


def test_a_picture_is_coloured_by_what_became_of_each_target() -> None:
    rects = list(drawing(broken()).iter(f"{SVG}rect"))
    missed = [rect for rect in rects if "; missed" in (rect.findtext(f"{SVG}title") or "")]
    assert [rect.get("fill") for rect in missed] == ["#d02020"]
    assert all(float(rect.get("width", "1").rstrip("%")) > 0 for rect in rects)


def test_names_in_a_picture_are_escaped() -> None:
    story = ticking().put(job="<b>&", schedule="@manually")
    assert "<b>&" in [element.text for element in drawing(story).iter(f"{SVG}text")]


def test_of_a_long_history_the_surroundings_of_the_first_violation_are_shown() -> None:
    judgement = Story().put().fault("kill-server", 30).tick(but=[150]).judge(2000)
    first = judgement.violations[0].when
    span = timeline.window(judgement)
    assert first == at(150)
    assert span.begin < first < span.end
    assert span.end - span.begin == timeline.SHOWN
    assert timeline.window(judgement, at(1000)).begin == at(1000) - timeline.SHOWN // 2
    assert timeline.window(ticking().judge()) == (START, at(160))


def test_a_picture_of_nothing() -> None:
    root = ET.fromstring(timeline.svg(judge(History([]))))
    assert "unknown" in [element.text for element in root.iter(f"{SVG}text")]


@pytest.mark.parametrize(
    ("story", "outcome", "status"), [(ticking(), "VALID", 0), (broken(), "INVALID", 1), (Story(), "UNKNOWN", 2)], ids=str
)
def test_a_saved_history_is_judged_again(
    story: Story, outcome: str, status: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    story.history().save(tmp_path / "history.jsonl")
    assert main(["judge", f"{tmp_path / 'history.jsonl'}"]) == status
    told = capsys.readouterr().out
    assert told == report.text(story.judge())
    assert told.startswith(outcome)


def test_the_picture_of_a_saved_history(tmp_path: Path) -> None:
    broken().history().save(tmp_path / "history.jsonl")
    picture = tmp_path / "history.svg"
    around = str(at(120) / SECOND)
    assert main(["judge", f"{tmp_path / 'history.jsonl'}", "--svg", f"{picture}", "--around", around]) == 1
    assert "missed" in picture.read_text()


def test_what_cannot_be_read_is_said_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["judge", f"{tmp_path / 'nothing'}"]) == 2
    (tmp_path / "odd").write_text("what?\n")
    assert main(["judge", f"{tmp_path / 'odd'}"]) == 2
    told = capsys.readouterr().err.splitlines()
    assert "No such file" in told[0]
    assert "odd, line 1: " in told[1]


def test_the_figures_of_a_saved_history_are_put_into_a_page(tmp_path: Path) -> None:
    broken().history().save(tmp_path / "history.jsonl")
    document = tmp_path / "page.md"
    document.write_text(f"before\n{page.BEGIN}\nwhat was there\n{page.END}\nafter\n")
    for _ in range(2):
        assert main(["judge", f"{tmp_path / 'history.jsonl'}", "--page", f"{document}"]) == 1
    assert document.read_text().splitlines() == [
        "before",
        page.BEGIN,
        "**Invalid**: `tox -e soak -- --seed 7`, 3 minutes with start, quiet and last reads.",
        "",
        "2 faults of 2 kinds; 15 instants were due, and 14 ran:",
        "**1 missed, 1 doubled, 0 early, 0 lost without a reason**.",
        "0 were lost with one, and none was skipped. The latest start was 0.1 s late.",
        "",
        "| fault | times | due | missed | doubled | early | late | lost | unexplained | latest start | time to recover |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
        "| kill-server | 1 | 2 | 0 | 0 | 0 | 0 | 0 | 0 | 0.1 s | 0.0 s |",
        "| kill-worker | 1 | 1 | 1 | 0 | 0 | 0 | 0 | 0 | 0.0 s | 2.0 s |",
        "| *no fault near* | 0 | 12 | 0 | 1 | 0 | 0 | 0 | 0 | 0.1 s |  |",
        page.END,
        "after",
    ]


def test_a_page_without_a_place_for_figures_is_left_alone(tmp_path: Path) -> None:
    document = tmp_path / "page.md"
    document.write_text(f"{page.BEGIN}\n")
    with pytest.raises(ValueError, match="no place for figures"):
        page.put(document, broken().judge())
    assert document.read_text() == f"{page.BEGIN}\n"


@pytest.mark.processes
def test_the_command_is_run_from_the_folder_of_the_tests(tmp_path: Path) -> None:
    ticking().history().save(tmp_path / "history.jsonl")
    command = [sys.executable, "-m", "checker", "judge", f"{tmp_path / 'history.jsonl'}"]
    done = subprocess.run(command, cwd=FOLDER.parent, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("VALID\n")


def test_a_judgement_of_a_saved_history_is_the_same(tmp_path: Path) -> None:
    broken().history().save(tmp_path / "history.jsonl")
    again = judge(History.load(tmp_path / "history.jsonl"))
    assert again.outcome is Outcome.INVALID
    assert again[1:] == broken().judge()[1:]
