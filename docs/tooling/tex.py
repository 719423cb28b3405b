"""Formulas as the docstrings write them, turned into LaTeX: `beta' (1 - abar_s) / (1 - abar_t)` and its like.

A product is read from the left: ``a b / c d`` is (a b / c) d. What is no formula, or names something that is
not known here, is refused by ValueError and stays as it was written.
"""

from __future__ import annotations

import re

GREEK = {"alpha", "beta", "gamma", "eta", "lambda", "mu", "phi", "pi", "rho", "sigma", "tau", "theta", "Phi"}
FUNCTIONS = {"log", "ln", "exp", "min", "max", "cos", "sin", "sum"}
UPRIGHT = {
    *(
        "KL",
        "Var",
        "data",
        "first",
        "greatest",
        "high",
        "hybrid",
        "in",
        "large",
        "low",
        "mean",
        "noise",
        "out",
    ),
    *("prior", "raw", "scale", "shift", "simple", "skip", "slope", "small", "variance", "vlb", "weight"),
    *("fixedlarge", "fixedsmall"),
}
"""Words that stand in formulas; any other word makes a text a remark."""

OPERATORS = {
    "+": "+",
    "-": "-",
    "=": "=",
    "<=": r"\le",
    ">=": r"\ge",
    "<": "<",
    ">": ">",
    "->": r"\to",
    ",": ",\\ ",
}
OPERATORS |= {
    ":": ":",
    "|": r"\mid",
    "~": r"\sim",
    "*": r"\cdot",
    "...": r"\dots",
    "..": r"\dots",
    ";": ";\\ ",
}
CLOSING = {"(": ")", "[": "]", "{": "}"}
TOKEN = re.compile(
    r"\s*(?P<token>\d*\.?\d+(?:e-?\d+)?|[A-Za-z]+|\|\||<=|>=|->|\.\.\.|\.\.|[-+=<>*/^_'~|,;:()\[\]{}])"
)
TEXT_AT_MOST = 80
"""Letters of a remark beside a formula; a longer one would not fit in a line."""


def latex(formula: str) -> str:
    """Return a formula as LaTeX.

    Raises:
        ValueError: if it is none.
    """
    reader = _Reader(formula)
    found = reader.sequence(None)
    if reader.rest:
        raise ValueError(f"{reader.rest[0]!r} closes nothing in {formula!r}")
    return found


def block(text: str) -> str | None:
    """Return an indented block as one displayed formula, a line a row, or None where it is none.

    Parts of a line that stand two spaces or more apart are columns; a part that is no formula is a remark.
    """
    rows, formulas = [], False
    for line in filter(None, map(str.strip, text.splitlines())):
        pieces = [piece for part in re.split(r"\s{2,}(?![\s=])", line) for piece in _pieces(part)]
        if any(len(piece) > TEXT_AT_MOST for piece, found in pieces if found is None):
            return None
        formulas = formulas or any(found for _, found in pieces)
        rows.append(
            _row([rf"\text{{{_escaped(piece)}}}" if found is None else found for piece, found in pieces])
        )
    if not formulas:
        return None
    if len(rows) == 1:
        return rows[0].replace("&", "")
    return r" \\ ".join(rows).join([r"\begin{aligned} ", r" \end{aligned}"])


def inline(sentence: str) -> str:
    r"""Return a sentence with the equations in it as ``$...$``: the longest runs of words that are one."""
    words, done, at = sentence.split(" "), [], 0
    while at < len(words):
        for end in range(len(words), at + 2, -1):
            run = " ".join(words[at:end])
            equation = run.rstrip(".,;:")
            if " = " in equation and len(_split(equation)) == 1 and (found := _formula(equation)):
                done.append(f"${found}${run[len(equation) :]}")
                at = end
                break
        else:
            done.append(words[at])
            at += 1
    return " ".join(done)


def _formula(text: str) -> str | None:
    """Return a formula as LaTeX, None where it is none: a word alone is none."""
    if re.fullmatch(r"[A-Za-z]\w+", text):
        return None
    try:
        return latex(text)
    except ValueError:
        return None


def _pieces(part: str) -> list[tuple[str, str | None]]:
    """Return a part of a line with its LaTeX, or clause by clause where the whole is no formula."""
    whole = _formula(part)
    if whole:
        return [(part, whole)]
    clauses = _split(part)
    ends = [*[","] * (len(clauses) - 1), ""]
    pieces: list[tuple[str, str | None]] = []
    for clause in map("".join, zip(clauses, ends, strict=True)):
        found = _formula(clause)
        if found is None and pieces and pieces[-1][1] is None:
            pieces[-1] = (f"{pieces[-1][0]} {clause}", None)
        else:
            pieces.append((clause, found))
    return pieces


def _split(text: str) -> list[str]:
    """Split at the commas that stand in no bracket."""
    clauses, depth = [""], 0
    for letter in text:
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth == 0:
            clauses.append("")
        else:
            clauses[-1] += letter
    return [clause.strip() for clause in clauses]


def _row(parts: list[str]) -> str:
    """Join the parts of a row, aligned at its first sign of equality or behind its first part."""
    parts[-1] = parts[-1].removesuffix(OPERATORS[","]).rstrip()
    row = r"\quad ".join(parts)
    aligned = re.sub(r"(?<!\S)(=|\\le|\\to)(?!\S)", r"&\1", row, count=1)
    if parts[0].startswith(r"\text") and len(parts) > 1:
        aligned = r"\quad & ".join([parts[0], r"\quad ".join(parts[1:])])
    return aligned if "&" in aligned else f"&{aligned}"


def _escaped(text: str) -> str:
    return re.sub(r"([\\{}$&#%_])", r"\\\1", text.replace("``", ""))


class _Reader:
    """Reads a formula from the left.

    Attributes:
        rest: tokens not yet read; "" stands for a space.
    """

    def __init__(self, text: str) -> None:
        self.rest: list[str] = []
        at = 0
        while text[at:].strip():
            found = TOKEN.match(text, at)
            if found is None:
                raise ValueError(f"{text[at:].strip()[0]!r} is no part of a formula")
            if at and found["token"] != text[at : found.end()]:
                self.rest.append("")
            self.rest.append(found["token"])
            at = found.end()

    def sequence(self, closing: str | None) -> str:
        """Read terms and operators up to a closing bracket."""
        done: list[str] = []
        term: list[str] = []
        while self._next() not in (closing, None, ")", "]", "}"):
            token = self._next()
            if token == "||":
                self._take()
                if self._touches(""):  # KL(q || p), and not the length of a vector
                    done, term = [*done, *term, r"\,\|\,"], []
                else:
                    inside = self.sequence("||")
                    self._expect("||")
                    term.append(self._powered(rf"\| {inside} \|"))
            elif token == "/":
                self._take()
                above, below = _bare(" ".join(term)), _bare(self._factor())
                term = [rf"\frac{{{above}}}{{{below}}}"]
            elif token in OPERATORS:
                self._take()
                done, term = [*done, *term, OPERATORS[str(token)]], []
            else:
                term.append(self._factor())
        return " ".join([*done, *term])

    def _next(self) -> str | None:
        while self.rest and not self.rest[0]:
            self.rest.pop(0)
        return self.rest[0] if self.rest else None

    def _take(self) -> str:
        self._next()
        return self.rest.pop(0) if self.rest else ""

    def _expect(self, token: str) -> None:
        if self._take() != token:
            raise ValueError(f"{token!r} is missing")

    def _touches(self, *tokens: str) -> bool:
        """Whether one of some tokens comes next, without a space before it."""
        return bool(self.rest) and self.rest[0] in tokens

    def _factor(self) -> str:
        token = self._take()
        if token in CLOSING:
            inside = self.sequence(CLOSING[token])
            self._expect(CLOSING[token])
            left, right = (rf"\{token}", rf"\{CLOSING[token]}") if token == "{" else (token, CLOSING[token])
            return self._powered(rf"\left{left} {inside} \right{right}")
        if token[-1:].isdigit():
            return self._powered(token)
        if token == "-":
            return f"-{self._factor()}"
        if not token.isalpha():
            raise ValueError(f"{token!r} begins no factor")
        return self._named(token)

    def _named(self, name: str) -> str:
        if name == "sqrt":
            self._expect("(")
            inside = self.sequence(")")
            self._expect(")")
            return self._powered(rf"\sqrt{{{inside}}}")
        if name == "alpha" and self.rest[:2] == ["_", "bar"]:
            del self.rest[:2]
            name = "abar"
        symbol = self._decorated(_symbol(name))
        if self._touches("("):  # what a function is of
            return self._powered(rf"{symbol}\!{self._factor()}")
        return self._powered(symbol)

    def _decorated(self, symbol: str) -> str:
        """Read marks and what stands below a name; a hat is a ^ with nothing to raise to."""
        below = prime = ""
        while self._touches("~", "'", "_"):
            mark = self._take()
            if mark == "~":
                symbol = rf"\tilde{{{symbol}}}"
            elif mark == "'":
                prime = "'"
            else:
                below = f"_{{{self._below()}}}"
        if self._touches("^") and (len(self.rest) < 2 or not re.match(r"[\w(\[{-]", self.rest[1])):
            self._take()
            symbol = rf"\hat{{{symbol}}}"
        return f"{symbol}{prime}{below}"

    def _below(self) -> str:
        if self._next() in CLOSING:
            return _bare(self._factor())
        token = self._take()
        return token if token.isdigit() else _symbol(token)

    def _powered(self, base: str) -> str:
        if not self._touches("^"):
            return base
        self._take()
        return f"{{{base}}}^{{{_bare(self._factor())}}}"


def _symbol(name: str) -> str:
    """Return the symbol of a name."""
    if name == "abar":
        return r"\bar\alpha"
    if name == "eps":
        return r"\epsilon"
    if name in GREEK or name in FUNCTIONS:
        return rf"\{name}"
    if len(name) == 1:
        return name
    if name in UPRIGHT:
        return rf"\mathrm{{{name}}}"
    raise ValueError(f"{name!r} is no symbol")


def _bare(factor: str) -> str:
    """Return a factor without the brackets around the whole of it."""
    found = re.fullmatch(r"\\left(?:\(|\\{) (.*) \\right(?:\)|\\})", factor)
    if found is None:
        return factor
    depth = 0
    for bracket in re.findall(r"\\left|\\right", found[1]):
        depth += 1 if bracket == r"\left" else -1
        if depth < 0:
            return factor
    return found[1]
