"""A small shell for simulated guests: what ``sh -c`` of a test or a user needs, and an honest error beyond.

Simulated: words with quotes, ``$NAME``, ``${NAME}``, ``$?``, ``$(command)``, assignments, ``;``, new lines,
``&&``, ``||``, ``!``, pipes, ``< > >> 2> 2>> 2>&1 >&2``, ``cd``, ``export``, ``exit``. Not simulated: loops,
conditionals, functions and background jobs, which end with exit code 2 and say so, and globbing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from iaas.drivers.sim.guest_files import GuestFileError, GuestFiles

SYNTAX_ERROR = 2
_OPERATORS = ("2>&1", ">&2", "1>&2", "2>>", "&&", "||", ">>", "2>", "1>", ";", "|", "<", ">", "&", "(", ")", "\n")
_WORDS_NOT_SIMULATED = "if then else elif fi for while until do done case esac function { }"
_KEYWORDS = frozenset(_WORDS_NOT_SIMULATED.split())
_REDIRECTIONS = frozenset({"<", ">", "1>", ">>", "2>", "2>>"})
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)


class Outcome(NamedTuple):
    """How a command ended."""

    exit_code: int
    stdout: bytes = b""
    stderr: bytes = b""


class ShellError(Exception):
    """The text is not a command, or one that is not simulated."""


class ShellExit(Exception):
    """``exit`` was called."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code


class Runner(Protocol):
    """What the shell needs of the guest."""

    files: GuestFiles
    env: dict[str, str]
    folder: str

    def command(self, argv: list[str], stdin: bytes) -> Outcome:
        """Run one program to its end."""
        ...


@dataclass(slots=True)
class _Token:
    text: str
    operator: bool = False
    # Whether any part was quoted: "" is a word, and a quoted keyword is none.
    quoted: bool = False


@dataclass(slots=True)
class _Redirections:
    stdin: bytes | None = None
    targets: list[tuple[str, str]] = field(default_factory=list)  # (operator, path)
    merge: str = ""


class Shell:
    """Runs one script in a guest; variables live as long as the shell."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._last_code = 0

    def run(self, script: str, stdin: bytes = b"") -> Outcome:
        """Run ``script`` and return how it ended; a syntax error ends with exit code 2."""
        out, err = bytearray(), bytearray()
        try:
            self._list(script, stdin, out, err)
        except ShellExit as leaving:
            self._last_code = leaving.exit_code
        except ShellError as exc:
            err += f"sh: {exc}\n".encode()
            self._last_code = SYNTAX_ERROR
        return Outcome(self._last_code, bytes(out), bytes(err))

    def _list(self, script: str, stdin: bytes, out: bytearray, err: bytearray) -> None:
        # Tokens are made one pipeline at a time, since expansion must see what earlier commands set.
        position, skip = 0, ""
        while position < len(script):
            pipeline, connector, position = self._next_pipeline(script, position)
            if any(pipeline):
                wanted = not (skip == "&&" and self._last_code != 0) and not (skip == "||" and self._last_code == 0)
                if wanted:
                    self._pipeline(pipeline, stdin, out, err)
            elif connector in {"", "\n"}:
                continue  # an empty line, also in the middle of "a &&" and its other half
            elif connector:
                raise ShellError("syntax error: a command is missing")
            skip = connector
        if skip in {"&&", "||"}:
            raise ShellError("syntax error: a command is missing")

    def _next_pipeline(self, script: str, position: int) -> tuple[list[str], str, int]:
        """Return the raw texts between pipes, the connector after them, and where to go on."""
        commands, start = [], position
        for at, operator in _operators_outside_quotes(script, position):
            if operator in {"&", "(", ")"}:
                raise ShellError(f"{operator!r} is not simulated")
            if operator == "|":
                commands.append(script[start:at])
                start = at + 1
            elif operator in {"&&", "||", ";", "\n"}:
                commands.append(script[start:at])
                return [text.strip() for text in commands], operator, at + len(operator)
        commands.append(script[start:])
        return [text.strip() for text in commands], "", len(script)

    def _pipeline(self, commands: list[str], stdin: bytes, out: bytearray, err: bytearray) -> None:
        negated = commands[0].startswith("! ")
        if negated:
            commands = [commands[0][2:], *commands[1:]]
        if not all(commands):
            raise ShellError("syntax error: a command is missing")
        data = stdin
        for text in commands:
            outcome = self._simple(text, data, err)
            data = outcome.stdout
            err += outcome.stderr
            self._last_code = outcome.exit_code
        out += data
        if negated:
            self._last_code = int(self._last_code == 0)

    def _simple(self, text: str, stdin: bytes, err: bytearray) -> Outcome:
        words, redirections = self._words(text, err)
        if redirections.stdin is not None:
            stdin = redirections.stdin
        try:
            for operator, path in redirections.targets:  # made even when the command writes nothing
                if not operator.endswith(">>"):
                    self._runner.files.write(path, b"")
            outcome = self._dispatch(words, stdin)
            stdout, stderr = outcome.stdout, outcome.stderr
            if redirections.merge == "2>&1":
                stdout, stderr = stdout + stderr, b""
            elif redirections.merge:
                stdout, stderr = b"", stdout + stderr
            for operator, path in redirections.targets:
                if operator.startswith("2"):
                    self._runner.files.write(path, stderr, append=True)
                    stderr = b""
                else:
                    self._runner.files.write(path, stdout, append=True)
                    stdout = b""
        except GuestFileError as exc:
            return Outcome(1, b"", f"sh: cannot create file: {exc}\n".encode())
        return Outcome(outcome.exit_code, stdout, stderr)

    def _dispatch(self, words: list[_Token], stdin: bytes) -> Outcome:
        if not words:
            return Outcome(0)
        if not words[0].quoted and words[0].text in _KEYWORDS:
            raise ShellError(f"{words[0].text!r} is not simulated")
        assigned: dict[str, str] = {}
        while words and (match := _ASSIGNMENT.fullmatch(words[0].text)):
            assigned[match[1]] = match[2]
            words = words[1:]
        if not words:
            self._runner.env.update(assigned)
            return Outcome(0)
        argv = [word.text for word in words]
        builtin = _BUILTINS.get(argv[0])
        if builtin is not None:
            return builtin(self, argv[1:])
        before = dict(self._runner.env)
        self._runner.env.update(assigned)
        try:
            return self._runner.command(argv, stdin)
        finally:
            self._runner.env.clear()
            self._runner.env.update(before)

    def _words(self, text: str, err: bytearray) -> tuple[list[_Token], _Redirections]:
        words: list[_Token] = []
        redirections = _Redirections()
        tokens = self._tokens(text, err)
        for position, token in enumerate(tokens):
            if position and tokens[position - 1].operator and tokens[position - 1].text in _REDIRECTIONS:
                self._redirect(tokens[position - 1].text, token, redirections)
            elif not token.operator:
                words.append(token)
            elif token.text in {"2>&1", ">&2", "1>&2"}:
                redirections.merge = token.text
        if tokens and tokens[-1].operator and tokens[-1].text in _REDIRECTIONS:
            raise ShellError("syntax error: a file name is missing")
        return words, redirections

    def _redirect(self, operator: str, token: _Token, redirections: _Redirections) -> None:
        if token.operator:
            raise ShellError("syntax error: a file name is missing")
        path = GuestFiles.absolute(token.text, self._runner.folder)
        if operator != "<":
            redirections.targets.append((operator, path))
            return
        try:
            redirections.stdin = self._runner.files.read(path)
        except GuestFileError as exc:
            raise ShellError(f"can't open {token.text}: {exc}") from exc

    def _tokens(self, text: str, err: bytearray) -> list[_Token]:
        tokens: list[_Token] = []
        word: _Token | None = None
        position = 0
        while position < len(text):
            char = text[position]
            operator = next((each for each in _OPERATORS if text.startswith(each, position)), None)
            if operator is not None and operator[0] in "12" and word is not None:
                operator = None  # the 2 of "file2>x" belongs to the word
            if char in " \t" or operator is not None:
                if word is not None:
                    tokens.append(word)
                    word = None
                if operator is not None:
                    tokens.append(_Token(operator, operator=True))
                position += len(operator) if operator is not None else 1
                continue
            if char == "#" and word is None:
                break
            word = word or _Token("")
            if char == "'":
                end = _closing(text, position + 1, "'")
                word.text += text[position + 1 : end]
                word.quoted = True
                position = end + 1
            elif char == '"':
                end = _closing(text, position + 1, '"')
                word.text += self._expand(text[position + 1 : end], err, escapes='"$`\\')
                word.quoted = True
                position = end + 1
            elif char == "\\":
                word.text += text[position + 1 : position + 2]
                word.quoted = True
                position += 2
            elif char == "$":
                value, position = self._variable(text, position, err)
                word.text += value
            else:
                word.text += char
                position += 1
        if word is not None:
            tokens.append(word)
        # An expansion to nothing is no word at all, unless it was quoted.
        return [token for token in tokens if token.text or token.quoted or token.operator]

    def _expand(self, text: str, err: bytearray, *, escapes: str) -> str:
        result, position = "", 0
        while position < len(text):
            char = text[position]
            if char == "\\" and position + 1 < len(text) and text[position + 1] in escapes:
                result += text[position + 1]
                position += 2
            elif char == "$":
                value, position = self._variable(text, position, err)
                result += value
            else:
                result += char
                position += 1
        return result

    def _variable(self, text: str, position: int, err: bytearray) -> tuple[str, int]:
        rest = text[position + 1 :]
        if rest.startswith("("):
            end = _closing_parenthesis(text, position + 2)
            inner = Shell(self._runner).run(text[position + 2 : end])
            err += inner.stderr
            return inner.stdout.decode(errors="surrogateescape").rstrip("\n"), end + 1
        if rest.startswith("?"):
            return str(self._last_code), position + 2
        if rest.startswith("{"):
            end = _closing(text, position + 2, "}")
            name = text[position + 2 : end]
            if not _NAME.fullmatch(name):
                raise ShellError(f"'${{{name}}}' is not simulated")
            return self._runner.env.get(name, ""), end + 1
        match = _NAME.match(rest)
        if match is None:
            return "$", position + 1
        return self._runner.env.get(match[0], ""), position + 1 + match.end()

    def _cd(self, arguments: list[str]) -> Outcome:
        wanted = GuestFiles.absolute(arguments[0] if arguments else "/root", self._runner.folder)
        if not self._runner.files.is_folder(wanted):
            return Outcome(1, b"", f"sh: cd: can't cd to {wanted}\n".encode())
        self._runner.folder = wanted
        return Outcome(0)

    def _export(self, arguments: list[str]) -> Outcome:
        self._runner.env.update((match[1], match[2]) for each in arguments if (match := _ASSIGNMENT.fullmatch(each)))
        return Outcome(0)

    def _exit(self, arguments: list[str]) -> Outcome:
        if not arguments:
            raise ShellExit(self._last_code)
        if not arguments[0].isdecimal():
            raise ShellError(f"exit: bad number: {arguments[0]}")
        raise ShellExit(int(arguments[0]) % 256)


_BUILTINS: dict[str, Callable[[Shell, list[str]], Outcome]] = {
    "cd": Shell._cd,
    "export": Shell._export,
    "exit": Shell._exit,
}


def _operators_outside_quotes(script: str, position: int) -> Iterator[tuple[int, str]]:
    while position < len(script):
        char = script[position]
        if char in "'\"":
            position = _closing(script, position + 1, char) + 1
        elif char == "\\":
            position += 2
        elif script.startswith("$(", position):
            position = _closing_parenthesis(script, position + 2) + 1
        elif char == "#" and (position == 0 or script[position - 1] in " \t\n;"):
            end = script.find("\n", position)
            position = len(script) if end < 0 else end
        else:
            operator = next((each for each in _OPERATORS if script.startswith(each, position)), None)
            if operator is None:
                position += 1
                continue
            yield position, operator
            position += len(operator)


def _closing(text: str, position: int, quote: str) -> int:
    while position < len(text):
        if text[position] == quote:
            return position
        position += 2 if text[position] == "\\" and quote != "'" else 1
    raise ShellError(f"syntax error: {quote} is never closed")


def _closing_parenthesis(text: str, position: int) -> int:
    depth = 1
    while position < len(text):
        char = text[position]
        if char in "'\"":
            position = _closing(text, position + 1, char)
        elif char == "(":
            depth += 1
        elif char == ")":
            depth -= 1
            if depth == 0:
                return position
        position += 1
    raise ShellError("syntax error: $( is never closed")
