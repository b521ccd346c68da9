"""The benchmarks' command."""

import argparse
import sys

from benchmarks.harness import SUITES, BenchError, run_suite


def main() -> int:
    """Runs one suite."""
    parser = argparse.ArgumentParser(prog="benchmarks", description="Measure triparty.")
    parser.add_argument("suite", help=f"quick, or one of {', '.join(SUITES)}")
    parser.add_argument(
        "--quick", action="store_true", help="a short form that shows that its cases work"
    )
    wanted = parser.parse_args()
    try:
        written = run_suite(wanted.suite, quick=wanted.quick)
    except BenchError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1
    print(f"written: {written} and {written.with_suffix('.png').name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
