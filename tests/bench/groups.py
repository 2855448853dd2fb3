"""A server and all its processes: what they spend, what memory they hold, and their end."""

import os
import signal
import time

TICKS = os.sysconf("SC_CLK_TCK")


def group(name):
    """The best way to hold processes together that this system has."""
    for kind, file, cpu_file, unit in (
        ("cgroup2", "cgroup.procs", "cpu.stat", 1e-6),
        ("cgroup", "cgroup.procs", "cpuacct.usage", 1e-9),
    ):
        for place in mounts(kind):
            path = os.path.join(place, f"{name}-{os.getpid()}")
            try:
                os.mkdir(path)
            except OSError:
                continue
            if os.path.exists(os.path.join(path, cpu_file)):
                return ControlGroup(path, file, cpu_file, unit)
            os.rmdir(path)
    return Family()


def mounts(kind):
    """Where file systems of this kind are."""
    with open("/proc/self/mounts") as file:
        return [words[1] for words in map(str.split, file) if words[2] == kind]


class ControlGroup:
    """Counts every process, also those that were born and have died unseen."""

    exact = True

    def __init__(self, path, members_file, cpu_file, unit):
        self.path, self.unit = path, unit
        self.members_file = os.path.join(path, members_file)
        self.cpu_file = os.path.join(path, cpu_file)

    def enter(self):
        """Puts the calling process into it."""
        with open(self.members_file, "w") as file:
            file.write("0")

    def set_leader(self, pid):
        """Nobody here needs a leader."""

    def members(self):
        """Processes that live."""
        with open(self.members_file) as file:
            return list(map(int, file))

    def cpu(self):
        """Seconds of processor time."""
        with open(self.cpu_file) as file:
            # `usage_usec 123`, or the number alone.
            return int(file.readline().split()[-1]) * self.unit

    def end(self, known):
        """Kills what still lives; `known` is what lived when the end began."""
        del known
        deadline = time.monotonic() + 10
        while members := self.members():
            kill(members)
            if time.monotonic() > deadline:
                raise RuntimeError(f"{len(members)} processes do not end")
            time.sleep(0.01)

    def close(self):
        """Forgets it."""
        os.rmdir(self.path)


class Family:
    """Without control groups: a process and all below it. What dies without being waited for is
    not counted, and that concerns tftpd-hpa."""

    exact = False

    def __init__(self):
        self.leader = None

    def enter(self):
        """Nothing to do."""

    def set_leader(self, pid):
        """The process on top."""
        self.leader = pid

    def members(self):
        """Processes that live."""
        children = {}
        for entry in filter(str.isdigit, os.listdir("/proc")):
            if fields := stat(entry):
                children.setdefault(int(fields[1]), []).append(int(entry))
        found, todo = [], [self.leader]
        while todo:
            one = todo.pop()
            found.append(one)
            todo += children.get(one, [])
        return found

    def cpu(self):
        """Seconds of processor time, of those that were waited for, too."""
        return sum(sum(map(int, stat(pid)[11:15] or "0")) for pid in self.members()) / TICKS

    def end(self, known):
        """Kills what still lives; children of one that has ended are found in `known` only."""
        kill(known)

    def close(self):
        """Nothing to do."""


def stat(pid):
    """The fields of a process behind its name; none if it is gone."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()
    except OSError:
        return []


def kill(pids):
    """These processes, if they still are."""
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


class Memory:
    """The most that a group has held at one moment, as far as it was looked at."""

    def __init__(self, members):
        self.members = members
        self.private = 0  # bytes no other process shares, files of programs included
        self.anonymous = 0  # bytes that are in no file
        self.processes = 0
        self.pause = 0.1

    def look(self):
        """Takes more time the more processes there are, so it also says when to look again."""
        start = time.monotonic()
        members = self.members()
        private = anonymous = 0
        for pid in members:
            one, other = memory(pid)
            private += one
            anonymous += other
        self.private = max(self.private, private)
        self.anonymous = max(self.anonymous, anonymous)
        self.processes = max(self.processes, len(members))
        self.pause = max(0.1, 20 * (time.monotonic() - start))


def memory(pid):
    """Private and anonymous bytes of a process; needs root for one that is not dumpable."""
    private = anonymous = 0
    try:
        with open(f"/proc/{pid}/smaps_rollup") as file:
            for line in file:
                if line.startswith(("Private_Clean", "Private_Dirty")):
                    private += int(line.split()[1]) << 10
                elif line.startswith("Anonymous"):
                    anonymous = int(line.split()[1]) << 10
    except OSError:
        pass
    return private, anonymous
