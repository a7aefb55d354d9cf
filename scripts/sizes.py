"""Small on purpose: files of at most 400 lines, functions of at most 40. A longer one says why: `# size: <reason>` at its start."""

import ast
import sys
from pathlib import Path

FILE_LINES = 400
FUNCTION_LINES = 40


def complaints(path: Path) -> list[str]:
    """What is too long in one file and does not say why."""
    text = path.read_text()
    lines = text.splitlines()
    found = []
    if len(lines) > FILE_LINES and "# size:" not in "".join(lines[:3]):
        found.append(f"{path}: {len(lines)} lines, at most {FILE_LINES}")
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > FUNCTION_LINES and "# size:" not in lines[node.lineno - 1]:
                found.append(f"{path}:{node.lineno}: {node.name} has {length} lines, at most {FUNCTION_LINES}")
    return found


def main() -> int:
    """Check every Python file of the source below the given paths."""
    files = [f for root in sys.argv[1:] for f in ([Path(root)] if root.endswith(".py") else sorted(Path(root).rglob("*.py")))]
    found = [line for file in files if "tests" not in file.parts for line in complaints(file)]
    print("\n".join(found), end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
