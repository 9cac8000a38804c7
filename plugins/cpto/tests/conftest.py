"""Scene files that several test modules read."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def traffic():
    """Folder of the recorded scenes."""
    folder = Path(os.environ.get("SFUMATO_DATA", "/nonexistent")) / "traffic"
    if not folder.is_dir():
        pytest.skip("SFUMATO_DATA is not set or holds no traffic folder")
    return folder


def _bound(name, y):
    points = "".join(f"<point><x>{x}</x><y>{y}</y></point>" for x in (0, 50, 100))
    return f"<{name}>{points}</{name}>"


@pytest.fixture(scope="session")
def straight_road():
    """Text of a scene of one lanelet without traffic, planning problem 9."""
    return f"""<?xml version="1.0"?><commonRoad commonRoadVersion="2020a" timeStepSize="0.1">
<lanelet id="1">{_bound("leftBound", 2)}{_bound("rightBound", -2)}</lanelet>
<planningProblem id="9"><initialState><position><point><x>5</x><y>0</y></point></position>
<orientation><exact>0</exact></orientation><time><exact>0</exact></time><velocity><exact>8</exact></velocity></initialState>
<goalState><position><rectangle><length>4</length><width>2</width><orientation>0</orientation><center><x>60</x><y>0</y>
</center></rectangle></position><time><intervalStart>40</intervalStart><intervalEnd>50</intervalEnd></time></goalState>
</planningProblem></commonRoad>"""
