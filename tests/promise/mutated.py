"""Search for a world that tells a mutant of the program from the rules: ``python -m tests.promise.mutated FOLDER [WORLDS]``.

The folder holds the mutant's package ``reaper``, which is loaded in place of the real one. Exits with 0 when the property
catches it, and says by which world; with 1 when it survives.
"""

import sys
from pathlib import Path

MOST = 4000  # worlds; most mutants are caught within a hundred


def main() -> int:
    """Run the property against the mutant."""
    folder = sys.argv[1]
    sys.path.insert(0, folder)
    import reaper

    assert Path(reaper.__file__ or "").is_relative_to(folder), "the real program was loaded"
    from hypothesis import HealthCheck, Phase, given, settings

    from tests.promise.program import run
    from tests.promise.test_promise import check
    from tests.promise.truth import World
    from tests.promise.worlds import halted_worlds, owned_worlds, worlds

    tried = 0

    @settings(
        max_examples=MOST,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    @given({"owners": owned_worlds, "stops": halted_worlds}.get(sys.argv[-1], worlds)())
    def search(world: World) -> None:
        nonlocal tried
        tried += 1
        check(world, run(world, act=not world.sandboxes))

    try:
        search()
    except AssertionError as caught:
        sys.stdout.write(f"caught by world {tried}: {str(caught)[:200]}\n")
        return 0
    sys.stdout.write(f"survived {tried} worlds\n")
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
