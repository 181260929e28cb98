"""What happens to the containers of a simulated engine: their states, and what moves them from one to the next."""

from typing import Final

from reaper.simulator.docker.engine import Engine
from reaper.simulator.docker.model import Container, RefusedError, Removal

KILL, TERM = 9, 15
_FIRST_DELAY, _LONGEST_DELAY, _STEADY = 0.1, 60.0, 10.0  # seconds: pauses between restarts; running this long resets them
_QUICK: Final = 700_000  # ns; a program that ends at once is seen to end before the engine notes that it has started


class Life:
    """The verbs of the API on one engine's containers. All raise RefusedError with the engine's own words."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    # Starting

    def start(self, container: Container) -> bool:
        """Start it; False when it runs already."""
        if container.paused:
            raise RefusedError(409, "cannot start a paused container, try unpause instead")
        if container.running:
            return False
        if container.removing or container.dead:
            raise RefusedError(409, "container is marked for removal and cannot be started")
        container.manually_stopped, container.restart_count, container.delay = False, 0, 0.0
        self._begin(container)
        return True

    def _begin(self, container: Container) -> None:
        engine = self._engine
        try:
            self._join(container)
            engine.networks.attach_all(container)
        except RefusedError as refused:
            self._not_started(container, refused)
            raise
        behaviour = container.behaviour
        container.running, container.restarting, container.paused, container.half_gone = True, False, False, False
        container.run += 1
        container.pid = engine.random.randrange(1000, 4_000_000)
        container.exit_code, container.error = 0, ""
        container.started = engine.tick()
        container.oom_killed = False
        container.log += behaviour.log
        for mount in container.mounts:
            if mount.kind == "volume":
                attributes = {"container": container.id, "destination": mount.destination, "driver": "local"}
                attributes |= {"propagation": "", "read/write": "true" if mount.writable else "false"}
                engine.events.log("volume", "mount", mount.name, attributes, engine.tick())
        engine.emit(container, "start")
        if behaviour.runs is not None:
            self._end_in(container, behaviour.runs)
        engine.changed(container)

    def _join(self, container: Container) -> None:
        mode = container.network_mode
        if mode.startswith("container:"):
            other = self._engine.container(mode.removeprefix("container:"))
            if not other.running:
                raise RefusedError(409, f"cannot join network of a non running container: {other.id}")

    def _not_started(self, container: Container, refused: RefusedError) -> None:
        container.error = refused.message
        container.running = container.restarting = False
        if not container.started:
            container.exit_code = 128
        self._engine.changed(container)

    def _end_in(self, container: Container, seconds: float) -> None:
        run = container.run
        due = self._engine.elapsed + seconds
        container.ends_at = due

        def end() -> None:
            if container.run == run and container.ends_at == due and not container.paused:
                self._ended(container, container.behaviour.code)

        self._engine.later(seconds, end)

    # Ending

    def _ended(self, container: Container, code: int) -> None:
        """The process is gone: what the engine does then."""
        engine = self._engine
        lasted = engine.time() - container.started
        container.run += 1
        container.pid, container.exit_code, container.ends_at = 0, code, None
        container.paused = container.term_pending = False
        container.oom_killed = container.behaviour.oom and code == container.behaviour.code
        container.finished = (
            container.started - _QUICK if container.behaviour.runs == 0 and lasted < 10**6 else engine.tick()
        )
        engine.emit(container, "die", exitCode=str(code))
        for other in engine.newest_first():  # the kernel ends all in a PID namespace with its first process
            if other.running and other.host.get("PidMode") in (f"container:{container.id}", f"container:{container.name}"):
                self._ended(other, 128 + KILL)
        for endpoint in container.networks.values():
            engine.networks.detach(container, endpoint)
        for mount in container.mounts:
            if mount.kind == "volume":
                attributes = {"container": container.id, "driver": "local"}
                engine.events.log("volume", "unmount", mount.name, attributes, engine.tick())
        if self._restarts(container):
            container.restart_count += 1
            container.delay = (
                _FIRST_DELAY if lasted >= _STEADY * 10**9 else min(container.delay * 2 or _FIRST_DELAY, _LONGEST_DELAY)
            )
            container.running, container.restarting = True, True
            container.finished = engine.tick()
            self.restart_in(container, container.delay)
            engine.changed(container)
            return
        self._stopped(container)

    def _stopped(self, container: Container) -> None:
        container.running = container.restarting = False
        for _ in range(container.stops):
            self._engine.emit(container, "stop")
        container.stops = 0
        if container.removal is not None:
            self._remove_files(container)
        elif container.auto_remove:
            container.removing, container.removal = True, Removal(volumes=True)
            self._remove_files(container)
        self._engine.changed(container)

    def _restarts(self, container: Container) -> bool:
        if container.manually_stopped or container.removal is not None:
            return False
        match container.policy:
            case "always" | "unless-stopped":
                return True
            case "on-failure":
                return container.exit_code != 0 and (not container.retries or container.restart_count < container.retries)
            case _:
                return False

    def restart_in(self, container: Container, seconds: float) -> None:
        """Let a restarting container be started again after that pause."""
        run = container.run

        def again() -> None:
            if container.run == run and container.restarting:
                try:
                    self._begin(container)
                except RefusedError:
                    self._stopped(container)

        self._engine.later(seconds, again)

    def _cancel_restart(self, container: Container) -> None:
        container.run += 1
        container.finished = container.started - _QUICK if container.behaviour.runs == 0 else container.finished
        self._stopped(container)

    # Signals

    def kill(self, container: Container, number: int, ref: str) -> None:
        """Send a signal, as `docker kill` does."""
        if not container.running:
            raise RefusedError(409, f"Cannot kill container: {ref}: Container {container.id} is not running")
        self.signal(container, number)

    def signal(self, container: Container, number: int) -> None:
        """Send a signal to a running container's process."""
        container.manually_stopped = True
        if container.restarting:
            self._cancel_restart(container)
            return
        engine = self._engine
        engine.emit(container, "kill", signal=str(number))
        configured = bool(container.config.get("StopSignal"))
        thaws = container.paused and number != KILL and (not configured or number == container.stop_signal)
        if number == KILL:
            self._dies_in(container, engine.kill_takes, 137)
        elif number in (TERM, container.stop_signal) and container.behaviour.obeys:
            if container.paused and not thaws:
                container.term_pending = True
            else:
                self._dies_in(container, container.behaviour.stops_in, container.behaviour.stop_code)
        if thaws:
            self.unpause(container)

    def _dies_in(self, container: Container, seconds: float, code: int) -> None:
        run = container.run

        def die() -> None:
            if container.run == run:
                self._ended(container, code)

        self._engine.later(seconds, die)

    def stop(self, container: Container, seconds: int | None) -> bool:
        """Begin to stop it, and kill it after so long; False when it is not running.

        `seconds` is the container's own time when None; a negative one never ends.
        It is stopped when it is no longer running: `Engine.until` waits for that, `Engine.settle` gets there.
        """
        if not container.running:
            return False
        seconds = container.stop_timeout if seconds is None else seconds
        container.stops += 1
        run = container.run
        at_once = seconds == 0 and not container.restarting

        def kill() -> None:
            if container.run == run and container.running:
                self.signal(container, KILL)

        if at_once:  # so soon that nothing has time to obey
            self._engine.emit(container, "kill", signal=str(container.stop_signal))
            container.manually_stopped = True
            if container.paused and not container.config.get("StopSignal"):
                self.unpause(container)
            kill()
            return True
        self.signal(container, container.stop_signal)
        if seconds > 0:
            self._engine.later(seconds, kill)
        return True

    # Pausing

    def pause(self, container: Container) -> None:
        """Freeze it."""
        if not container.running:
            raise RefusedError(409, f"Container {container.id} is not running")
        if container.paused:
            raise RefusedError(409, f"Container {container.id} is already paused")
        if container.restarting:
            raise RefusedError(409, f"Container {container.id} is restarting, wait until the container is running")
        container.paused = True
        if container.ends_at is not None:
            container.ends_at -= self._engine.elapsed
        self._engine.emit(container, "pause")
        self._engine.changed(container)

    def unpause(self, container: Container) -> None:
        """Let it go on."""
        if not container.paused:
            raise RefusedError(500, f"Container {container.id} is not paused")
        container.paused = False
        if container.ends_at is not None:
            self._end_in(container, max(container.ends_at, 0.0))
        self._engine.emit(container, "unpause")
        if container.term_pending:
            container.term_pending = False
            self._dies_in(container, container.behaviour.stops_in, container.behaviour.stop_code)
        self._engine.changed(container)

    # Removing

    def remove(self, container: Container, ref: str, *, volumes: bool, force: bool, link: bool = False) -> Removal:
        """Begin to remove it. `Removal.over` is set when it is done, or has failed."""
        if container.removing:
            raise RefusedError(409, f"removal of container {ref} is already in progress")
        if link:
            raise RefusedError(500, "Conflict, cannot remove the default link name of the container")
        if container.running and not force:
            how = "Stop the container before attempting removal or force remove"
            if container.paused:
                how = f"Unpause and then {how[0].lower()}{how[1:]}"
            raise RefusedError(409, f"You cannot remove a {container.state} container {container.id}. {how}")
        container.removing, container.removal = True, Removal(volumes=volumes)
        removal = container.removal
        if container.running:
            self.signal(container, KILL)
        else:
            self._remove_files(container)
        self._engine.changed(container)
        return removal

    def _remove_files(self, container: Container) -> None:
        container.dead = True
        if container.behaviour.removal:
            self._engine.later(container.behaviour.removal, lambda: self._removed(container))
        else:
            self._removed(container)

    def _removed(self, container: Container) -> None:
        engine, removal = self._engine, container.removal
        assert removal is not None
        removal.over = True
        if container.failures < container.behaviour.removal_failures:
            container.failures += 1
            where = f"{engine.root}/containers/{container.id}"
            removal.error = f"unable to remove filesystem for {container.id}: unlinkat {where}: device or resource busy"
            container.error, container.removing, container.removal, container.half_gone = removal.error, False, None, True
            engine.changed(container)
            return
        engine.leave(container)
        if removal.volumes:
            self._remove_volumes(container)
        engine.emit(container, "destroy")
        engine.changed(container)

    def _remove_volumes(self, container: Container) -> None:
        for mount in container.mounts:
            volume = self._engine.volumes.get(mount.name)
            if mount.anonymous and volume is not None and not volume.users:
                self._engine.drop_volume(volume)

    def free_name(self, name: str) -> None:
        """Raise RefusedError when a container has this name."""
        if other := self._engine.names.get(name):
            raise RefusedError(
                409,
                f'Conflict. The container name "/{name}" is already in use by container "{other.id}". '
                "You have to remove (or rename) that container to be able to reuse that name.",
            )
