from pathlib import Path

OPERATOR = Path(__file__).resolve().parents[2] / "operator"


def test_operator_is_a_source_root_and_never_a_package() -> None:
    # It would shadow the standard library's `operator`.
    assert not (OPERATOR / "__init__.py").exists()


def test_each_package_says_in_one_line_what_it_is() -> None:
    folders = [file.parent for file in OPERATOR.glob("slotkeeper/**/*.py")]

    for folder in set(folders):
        text = (folder / "__init__.py").read_text()
        assert text.startswith('"""'), folder


def test_no_module_has_two_jobs() -> None:
    for file in OPERATOR.glob("slotkeeper/**/*.py"):
        assert len(file.read_text().splitlines()) <= 300, file
