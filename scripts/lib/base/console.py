"""How a script talks to the person who runs it: one line for a mistake, the traceback in the log."""

from __future__ import annotations

import argparse
import atexit
import errno
import logging
import os
import re
import select
import signal
import stat
import sys
import unicodedata
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NoReturn

from scripts.lib.base import interrupts, products, usage
from scripts.lib.base.command_language import encoding_of_shell, language_of_command, language_of_words
from scripts.lib.base.disks import describe_full_disk, existing, user_name, usual_folders
from scripts.lib.base.environment import Variable
from scripts.lib.base.language import add_option, heading, language, speak, speaking, tr_line
from scripts.lib.base.outcome import Ending, Outcome, may_pass, outcome_path
from scripts.lib.base.problems import STOPPED, Stopped, UserError
from scripts.lib.base.subprocesses import KILLED_WORKER, memory_ran_out, was_killed

logger = logging.getLogger(__name__)
#: Exit status of a run that its user interrupted with Ctrl-C, as shells report it (128 + SIGINT).
EXIT_INTERRUPTED = 128 + signal.SIGINT


#: Characters that steer a terminal instead of being read, in names of files, answers of servers, outputs of programs:
#: escape codes, and those that turn the direction of writing. Line ends and tabs stay.
STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


#: How the outcome of an error begins that nobody foresaw.
UNEXPECTED = "unexpected "
#: What to do where a module cannot be loaded: one of a package, one of mimflow.
OF_PACKAGES = "remove .venv, then `make setup` builds it anew"
OF_CHECKOUT = "`git status` shows what is missing or changed in this folder"
#: Characters of a file's name that a message has.
LONGEST_SHOWN = 500


def without_steering(text: str) -> str:
    """Return *text* with a ? for each character that would steer the terminal."""
    return STEERING.sub("?", text)


def one_line(message: object) -> str:
    """Return *message* as text to be read, with every run of white space (line ends too) as one space."""
    return without_steering(" ".join(str(message).split()))


def describe_os_error(error: OSError | MemoryError) -> str:
    """Say in one line what the operating system refused, and what to do about it."""
    if isinstance(error, MemoryError):
        error = OSError(errno.ENOMEM, str(error))
    name = _path(error.filename)
    names = [_shown(name) for name in (error.filename, error.filename2) if name is not None and _shown(name)]
    where = f" ({' and '.join(names)})" if names else ""
    remedies = {
        errno.ENOSPC: f"no space left on the device{where}: free some and run the same command again",
        errno.EDQUOT: f"your quota of bytes or of files is used up{where}: free some (`quota -s`) and run it again",
        errno.EACCES: f"permission denied{where}: {_owner(name)}",
        errno.EROFS: f"read-only file system{where}: choose another folder",
        errno.ENOENT: f"no such file or folder{where}: check the path",
        errno.ENOTDIR: f"not a folder{where}: check the path",
        errno.ENAMETOOLONG: f"a name that is too long for this disk{where}: shorten it",
        errno.EIO: f"the disk cannot be read or written{where}: it may be failing (see `dmesg`): use another one",
        errno.ESTALE: f"the network disk has lost this file{where}: run the same command again",
        errno.EMFILE: f"too many open files{where}: `ulimit -n 4096`, then the same command again",
        errno.ENOMEM: f"no memory left{where}: end other programs, or use fewer jobs at a time (ARGS='--cores 1')",
    }
    words = error.strerror or (str(error) if error.args and error.errno is None and error.args[0] is not None else "")
    return remedies.get(error.errno or 0, one_line(words or type(error).__name__) + where)


def _path(name: object) -> Path | None:
    """Return the path that an error names; None where it names none, or the number of an open file."""
    return Path(os.fsdecode(name)) if name and isinstance(name, str | bytes | os.PathLike) else None


def _shown(name: object) -> str:
    """Return the name that an error has of a file, as one line; of one that is too long, its end."""
    text = f"open file {name}" if isinstance(name, int) else str(_path(name) or name or "")
    text = one_line(text.encode("utf-8", "backslashreplace").decode())
    return text if len(text) <= LONGEST_SHOWN else f"...{text[-LONGEST_SHOWN:]}"


def _owner(path: Path | None) -> str:
    """Say who can give a permission: who owns a file, or the folder in which it was to be made."""
    try:
        owner = existing(path).stat().st_uid if path else None
    except OSError:
        owner = None
    if owner is None:
        return "check who owns it"
    return "check its mode (`ls -ld`)" if owner == os.getuid() else f"ask {user_name(owner)}, who owns it"


class ReadableFormatter(logging.Formatter):
    """Writes no escape codes, wherever a message has its text from: a log is looked at in a terminal, too."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, or lines, of *record*."""
        return without_steering(super().format(record))


class ShownFormatter(ReadableFormatter):
    """Writes lines for a person, in the language of the command; the log of the same lines stays English."""

    def __init__(self) -> None:
        super().__init__("%(message)s")
        self.language = language()  # threads speak their own

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, or lines, of *record*."""
        with speaking(self.language):
            return "\n".join(map(tr_line, super().format(record).split("\n")))


class Terminal(logging.StreamHandler):
    """A handler of its own type: mmcv silences every plain StreamHandler of the root logger when it is imported."""


def terminal_width() -> int | None:
    """Return the columns of the terminal that standard output reaches, also through the Screen; None: it does not."""
    is_led = Variable.LIVE in os.environ and os.path.sameopenfile(1, 2)
    if not (sys.stdout.isatty() or is_led):
        return None
    try:
        with open("/dev/tty", "rb") as terminal:
            return os.get_terminal_size(terminal.fileno()).columns or None
    except OSError:
        return None


def described(name: str, value: str, width: int) -> str:
    """Return a fact as a line in the language of the command: its name in *width* columns, and what it is.

    Standard library only, as of `make doctor`; ``scripts.lib.base.text`` has tables.
    """
    name, shown = heading(name), heading(value) if value == "none" else tr_line(value)
    columns = sum(1 + (unicodedata.east_asian_width(letter) in "WF") for letter in name)
    return f"{name}{' ' * max(0, width - columns)} {shown}"


def say(line: str) -> None:
    """Print a line, or lines, of a command in its language."""
    print("\n".join(map(tr_line, line.split("\n"))), flush=True)


def confirmed(question: str) -> bool:
    """Ask a person at a terminal; where nobody sits there, the command itself was the answer."""
    if not sys.stdin.isatty():
        return True
    sys.stdout.write(f"{tr_line(question)} [y/N] ")
    sys.stdout.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def can_rewrite() -> bool:
    """Tell whether a line on stderr can be rewritten: on a terminal, and where a Screen of the workflow reads it."""
    with suppress(OSError):
        is_pipe = stat.S_ISFIFO(os.fstat(2).st_mode)
        return sys.stderr.isatty() or (is_pipe and Variable.LIVE in os.environ)
    return False


def configure_logging(log: Path | None) -> None:
    """Send INFO and above to stderr as plain lines, and everything, with times, to *log*, which is begun anew."""
    root = logging.getLogger()
    root.setLevel(logging.DEBUG if log else logging.INFO)
    logging.raiseExceptions = False  # a log on a full disk must not hide the line that says so
    terminal = Terminal(sys.stderr)
    terminal.setLevel(logging.INFO)
    terminal.setFormatter(ShownFormatter())
    # Warnings of libraries are for the log: no user can act on mmcv's notice of its own next version.
    logging.captureWarnings(True)
    terminal.addFilter(lambda record: record.name != "py.warnings")
    root.addHandler(terminal)
    if log:
        log.parent.mkdir(parents=True, exist_ok=True)
        outcome_path(log).unlink(missing_ok=True)
        log.write_bytes(b"")  # emptied here and appended to, so that a child process may write to it as well
        file = logging.FileHandler(log, mode="a", encoding="utf-8", errors="backslashreplace")
        file.setFormatter(ReadableFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        root.addHandler(file)
    # Chatty libraries fill a log that people must read.
    for name in ("matplotlib", "PIL", "fontTools", "urllib3", "h5py", "markdown_it"):
        logging.getLogger(name).setLevel(logging.WARNING)


def describe_write_error(error: OSError, folder: Path) -> str:
    """Return what is to be said of an error of writing in *folder*: whose disk was full, though it need not be now."""
    full = describe_full_disk([folder], certain=True) if error.errno == errno.ENOSPC else None
    return str(full or describe_os_error(error))


def _full_disk(error: Exception, args: argparse.Namespace) -> Outcome | None:
    """Return what is to be said where an error comes of a full disk: one that it names, or one that is written to."""
    if isinstance(error, OSError) and error.errno not in (errno.ENOSPC, None):
        return None
    named = _path(getattr(error, "filename", None))
    paths = [path for value in vars(args).values() for path in (value if isinstance(value, list) else [value])]
    folders = [path for path in [*paths, named] if isinstance(path, Path)]
    certain = isinstance(error, OSError) and error.errno == errno.ENOSPC
    full = describe_full_disk([*folders, *usual_folders()], certain)
    other = "" if isinstance(error, OSError) else f" ({type(error).__name__}: {one_line(error)[:200]})"
    return Outcome(Ending.FAILED, one_line(full.what) + other, full.remedy) if full else None


def _may_pass(error: OSError | MemoryError) -> bool:
    return getattr(error, "errno", errno.ENOMEM) not in (errno.EACCES, errno.EDQUOT)


def _nobody_reads() -> bool:
    """Tell whether it is the pipe of this command's own output that is broken, and not one to another process."""
    poll = select.poll()
    with suppress(OSError, ValueError):  # there is no such file
        poll.register(sys.stdout, 0)
    return any(events & select.POLLERR for _file, events in poll.poll(0))


def _parse(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the arguments of a command, with the options of all commands; in one line, what is wrong with them."""

    words = sys.argv[1:] if argv is None else list(argv)

    def refuse(message: str) -> NoReturn:
        speak(language_of_words(words, os.environ))
        help_ = f"`{parser.prog} --help` lists what it understands"
        parser.exit(2, f"{tr_line(f'error: {one_line(message)}: {help_}')}\n")

    parser.error = refuse  # type: ignore[method-assign]
    parser.add_argument("--log", type=Path, metavar="FILE", help="write details and tracebacks to FILE")
    paths = partial(parser.add_argument, type=Path, nargs="*", default=[], metavar="PATH")
    paths("--reads", help="products of other rules: refused where they are not what their records say")
    paths("--makes", help="products of this rule, which are recorded with their hashes")
    with suppress(argparse.ArgumentError):  # the command has it already
        add_option(parser, None)
    return parser.parse_args(words)


def _speak_language(args: argparse.Namespace) -> None:
    """Speak the language of a command from now on, and write it as the terminal reads it."""
    speak(language_of_command(vars(args), os.environ))
    if language() == "en":
        return
    for stream in (sys.stdout, sys.stderr):
        with suppress(LookupError, AttributeError, OSError):  # an encoding that nobody knows; no file of the system
            if stream.isatty() and (encoding := encoding_of_shell(os.environ)):
                stream.reconfigure(encoding=encoding, errors="replace")  # type: ignore[union-attr]


def run_cli(
    build_parser: Callable[[], argparse.ArgumentParser],
    main: Callable[[argparse.Namespace], None],
    argv: Sequence[str] | None = None,
) -> NoReturn:
    """Run *main* as a command: exit 0, or say in one line what went wrong and exit with another status.

    What went wrong stands as data beside the log, too: :class:`scripts.lib.base.outcome.Outcome`.

    Parameters
    ----------
    build_parser : makes the parser of the command; ``--log FILE`` is added to it here.
    main : does the work; raises :class:`UserError` for what the user can mend.
    argv : the arguments, ``sys.argv[1:]`` when None.
    """
    sys.excepthook = sys.__excepthook__  # what is wrong from here on is told below
    parser = build_parser()
    args = _parse(parser, argv)
    _speak_language(args)
    step = args.log.stem if args.log else Path(parser.prog).stem
    try:
        interrupts.take()
        configure_logging(args.log)
        products.check(args.reads)
        main(args)
        sys.stdout.flush()  # here, not at the end of Python, where an error would be no line of ours
        if args.makes:
            products.record(step, args.makes)
    except (Exception, KeyboardInterrupt) as error:
        if isinstance(error, BrokenPipeError) and _nobody_reads():  # who did has seen enough, as `head` has
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(128 + signal.SIGPIPE)
        outcome = _outcome_of(error, args)
        if outcome.what.startswith(UNEXPECTED) and not args.log:
            raise
        logger.debug("stopped by this", exc_info=True)
        _tell(outcome, args.log)
        sys.exit(EXIT_INTERRUPTED if outcome.ending == Ending.INTERRUPTED else 1)
    usage.note(step, args.log)
    sys.exit(0)


def tell_early_error(log: Path | None, error: Exception) -> bool:
    """Do for an error that comes before :func:`run_cli` what that does; False where its traceback is to be shown."""
    outcome = _outcome_of(error, argparse.Namespace(log=log))
    if is_shown := bool(log) or not outcome.what.startswith(UNEXPECTED):
        speak("en" if log else language_of_words(sys.argv[1:], os.environ))
        configure_logging(log)
        logger.debug("stopped before it began", exc_info=error)
        _tell(outcome, log)
    return is_shown


def _outcome_of(error: BaseException, args: argparse.Namespace) -> Outcome:
    """Return how *error* ends a command."""
    hint = f"; details: {args.log}" if args.log else ""
    if isinstance(error, KeyboardInterrupt):
        return Outcome(Ending.INTERRUPTED, "interrupted")
    if isinstance(error, UserError):
        ending = Ending.STOPPED if isinstance(error, Stopped) else Ending.FAILED
        return Outcome(ending, one_line(error.what), one_line(error.remedy), error.again)
    if isinstance(error, Exception) and (full := _full_disk(error, args)):
        return full  # torch, sqlite and others have errors of their own for it
    if isinstance(error, OSError | MemoryError):
        return Outcome(Ending.FAILED, one_line(describe_os_error(error)) + hint, again=_may_pass(error))
    what = f"{type(error).__name__}: {one_line(error)}"
    if isinstance(error, ImportError):
        see = f" (see {args.log})" if args.log else ""
        is_own = (error.name or "").partition(".")[0] == "scripts"
        remedy = OF_CHECKOUT if is_own else OF_PACKAGES
        return Outcome(Ending.FAILED, f"a module does not load{see}: {what}", remedy)
    if KILLED_WORKER.search(what):
        return Outcome(Ending.FAILED, *was_killed("a worker process", memory_ran_out()), again=True)
    return Outcome(Ending.FAILED, f"{UNEXPECTED}{what}{hint}", again=may_pass(what))


def _tell(outcome: Outcome, log: Path | None) -> None:
    """Say how a command ended, as its last line, and write it beside its log."""
    logger.error("%s", STOPPED if outcome.ending == Ending.INTERRUPTED else f"error: {outcome}")
    if log:
        outcome.write(outcome_path(log))
    atexit.register(logging.disable)  # that line is the last one: libraries log their statistics at the end of Python
