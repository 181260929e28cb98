"""Rules of the core, each switched off by one change to its text."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """``rule`` is off once ``text`` reads ``instead``."""

    rule: str
    text: str
    instead: str


MUTANTS = (
    Mutant(
        "what the scope does not match is not owned",
        "        if owner is None:\n            nearly",
        "        if False:\n            nearly",
    ),
    Mutant(
        "no labels in the answer means keep",
        "if resource.labels is None:\n            return keep",
        "if False:\n            return keep",
    ),
    Mutant(
        "a time that cannot be is no age",
        "if (odd := impossible_time(resource, self.now)) is not None:",
        "if (odd := None) is not None:",
    ),
    Mutant(
        "system containers stay", "if (what := resource.system_container) is not None:", "if (what := None) is not None:"
    ),
    Mutant("[protect] keeps", "if sign := self.rules.protect.selector", "if False and self.rules.protect.selector"),
    Mutant("reaper.keep keeps", "if KEEP_LABEL in resource.protecting_labels:", "if False:"),
    Mutant(
        "a label override that cannot be read keeps",
        'return keep("label override", Reason.INVALID_LABEL',
        'Finding("label override", Reason.INVALID_LABEL',
    ),
    Mutant(
        "a label override that is not due keeps",
        'return keep("label override", Reason.LABEL_NOT_DUE, phrase, lambda: sentence, due_at=end)',
        'return Finding("label override", None, lambda: sentence)',
    ),
    Mutant(
        "a living lease keeps",
        "if lease is not None and lease.ending is None:\n            return keep",
        "if False:\n            return keep",
    ),
    Mutant(
        "an unknown lease keeps for a day",
        'if end > self.now:\n            sentence = f"{unknown}',
        'if False:\n            sentence = f"{unknown}',
    ),
    Mutant(
        "what is changing stays",
        "if resource.state is State.CHANGING:\n        doing",
        "if False:\n        doing",
    ),
    Mutant(
        "an unknown state stays",
        "if resource.state is State.UNKNOWN:\n        return keep",
        "if False:\n        return keep",
    ),
    Mutant("a restart policy keeps", "if name not in protect.restart_policies:", "if True:"),
    Mutant(
        "what was never started has a grace", "if not resource.never_started or resource.created_at is None:", "if True:"
    ),
    Mutant(
        "ages count from the last start",
        "    return max(resource.created_at, resource.started_at)\n",
        "    return resource.created_at\n",
    ),
    Mutant(
        "stopped_for counts from the stop",
        "    return max(resource.stopped_at, started)\n",
        "    return resource.created_at\n",
    ),
    Mutant(
        "older_than is waited for",
        "_condition(Reason.OLDER_THAN, age_base(resource), policy.older_than)",
        "_condition(Reason.OLDER_THAN, age_base(resource), timedelta(0))",
    ),
    Mutant(
        "idle_for is waited for",
        "_condition(Reason.IDLE_FOR, resource.last_activity_at, policy.idle_for)",
        "_condition(Reason.IDLE_FOR, resource.last_activity_at, timedelta(0))",
    ),
    Mutant(
        "idleness means death only where a runner keeps alive",
        "why = without_keepalive(resource, policy.keepalive, policy.idle_for)",
        "why = None",
    ),
    Mutant("what is kept alive on purpose stays", "if resource.auto_stop <= timedelta(0):", "if False:"),
    Mutant(
        "an unknown activity is no idleness",
        "auto_stop=_auto_stop(stop) if active is not None else None",
        "auto_stop=_auto_stop(stop)",
    ),
    Mutant("what is archived stays", "if resource.raw_state == ARCHIVED and", "if False and"),
    Mutant(
        "a group is one unit", "while self._unite_groups() | self._keep_what_is_used()", "while self._keep_what_is_used()"
    ),
    Mutant("what is in use stays", "while self._unite_groups() | self._keep_what_is_used()", "while self._unite_groups()"),
    Mutant("a protected network keeps its project", "return decision.reason in _SPEAKS_FOR_GROUP", "return False"),
    Mutant("a protected pod keeps what is in it", "return not decision.reap and decision.reason not in", "return None in"),
    Mutant("what is already being destroyed stays", 'if wanted == "destroyed" or', "if False or"),
    Mutant(
        "a warm pool is the platform's",
        'system_container="an unclaimed member of a warm pool" if text(row.get("warmPoolId")) else None',
        "system_container=None",
    ),
    Mutant(
        "a linked sandbox keeps its owner", "uses = frozenset((linked,)) if linked else", "uses = frozenset() if linked else"
    ),
    Mutant(
        "a preset's sign is an exact one",
        "if key not in labels:\n        return False\n    return not equals or fnmatchcase(labels[key], glob)",
        "return key in labels",
    ),
    Mutant("policies select by name", "and (not self.names or name_matches(self.names, resource.name))", ""),
    Mutant(
        "a label that the image carries owns nothing",
        "inherited = shared(frozenset(key for key, value in labels.items() if known.get(key) == value))",
        "inherited = frozenset()",
    ),
    Mutant(
        "an image that cannot be read proves no label",
        "if self.inherited is None:\n            return {}",
        "if self.inherited is None:\n            return self.labels or {}",
    ),
    Mutant(
        "a member of a project is what Compose made", "if not any(key in labels for key in MADE_BY_COMPOSE):", "if False:"
    ),
    Mutant(
        "what is made of a committed member is no member",
        "if inherited and all(key in inherited for key in labels if key.startswith(COMPOSE)):",
        "if False:",
    ),
    Mutant("who is in its network keeps it", '_MODES = ("NetworkMode", "PidMode"', '_MODES = ("PidMode"'),
    Mutant("who is in its PID namespace keeps it", '"NetworkMode", "PidMode", "IpcMode"', '"NetworkMode", "IpcMode"'),
    Mutant("who is in its IPC namespace keeps it", '"PidMode", "IpcMode", "UTSMode"', '"PidMode", "UTSMode"'),
    Mutant("who is linked to it keeps it", 'texts(host.get("Links"))', "()"),
    Mutant("who has its volumes keeps it", 'texts(host.get("VolumesFrom"))', "()"),
    Mutant(
        "a label override from before its resource keeps",
        "if resource.created_at is not None and end < resource.created_at:",
        "if False:",
    ),
    Mutant(
        "a label override of the image takes nothing",
        '            if own is None:\n                return Finding(\n                    "label override"',
        '            if False:\n                return Finding(\n                    "label override"',
    ),
    Mutant(
        "a claim takes nothing from before its lease",
        "return earliest >= _as_exact_as(moment, self.since) and",
        "return",
    ),
    Mutant("a claim takes nothing from after its lease", " and latest <= self.ending.last", ""),
    Mutant(
        "a claim takes nothing from after its holder's last sign of life",
        "return Ending(at, cause, min(self.seen_at, at) + IN_FLIGHT)",
        "return Ending(at, cause, at + IN_FLIGHT)",
    ),
    Mutant(
        "a claim takes nothing on another endpoint",
        "if self.endpoints is not None and site.id not in self.endpoints:",
        "if False:",
    ),
    Mutant(
        "a claim takes nothing that names another lease",
        "if self._names_another(resource) or not self._is_in_its_time(resource.created_at, site):",
        "if not self._is_in_its_time(resource.created_at, site):",
    ),
    Mutant(
        "what is in another region stays",
        "if resource.excluded is not None:\n            yield keep",
        "if False:\n            yield keep",
    ),
    Mutant("clocks that differ by an hour tell no age", "if abs(self.clock_skew) <= LARGEST_SKEW:", "if True:"),
    Mutant("two folders are two projects", 'return labels.get(WORKING_DIR_LABEL, "") +', 'return "" +'),
)

# Of stops and of what few worlds have: tried with ``make mutants`` alone.
RARE = (
    Mutant(
        "one that does not say its folder keeps each project of its name",
        "return unclear[0] if unclear and len(unclear) < len(resources) else None",
        "return None",
    ),
    Mutant(
        "a policy that stops deletes nothing",
        "action=finding.policy.action if finding.policy else Action.DELETE,",
        "action=Action.DELETE,",
    ),
    Mutant(
        "what a stop destroys is not stopped",
        'return "would be destroyed by a stop" if resource.lost_when_stopped else None',
        "return None",
    ),
    Mutant(
        "no action is stronger than each member of the group allows",
        "return possible and member.action.strength >= action.strength",
        "return possible",
    ),
    Mutant(
        "a member that is kept keeps its group from a stop",
        "return member.reason in _NO_POLICY_MATCHES and member.owner is not None and _has_had(judge, resource, action)",
        "return True",
    ),
    Mutant(
        "what is only stopped keeps what it uses",
        "            if decision.deletes:\n                continue",
        "            if decision.reap:\n                continue",
    ),
    Mutant(
        "a project that is only stopped keeps what belongs to it",
        "halted = (i for i in members if not self.decisions[i].deletes)",
        "halted = ()",
    ),
)

# Rules that only a world which changes, or fails, can show: the model's alone (tests/model).
IN_TIME = (
    Mutant(
        "what has changed since it was listed stays",
        "            if why := what_changed(before[resource.id], resource, stopped_by_us=ours, listed_at=since):",
        "            if why := None:",
    ),
    Mutant(
        "what is to be kept by now stays",
        "            if not decision.reap:\n                raise ChangedError",
        "            if False:\n                raise ChangedError",
    ),
    Mutant(
        "a project that another member has joined stays",
        "        if joined := sorted(member.name",
        "        if joined := () and sorted(member.name",
    ),
    Mutant(
        "what something depends on by now stays",
        "        if stays := self._that_stay(found):",
        "        if stays := ():",
    ),
    Mutant(
        "a dry run changes nothing",
        "            if self.shared.options.act and not self.draining:",
        "            if not self.draining:",
    ),
    Mutant(
        "a cap is kept",
        "        self.decisions, self.cap, self.held_back = await self.looker.capped(caps, self.decisions, self.held)",
        "        self.cap, self.held_back = None, frozenset()",
    ),
    Mutant(
        "nothing is deleted while no lease can be read",
        "        found = self.shared.leases()\n",
        "        try:\n            found = self.shared.leases()\n        except ReaperError:\n            found = ()\n",
    ),
    Mutant(
        "what is about to go is on record first",
        "            await ledger.begin(self.name, self.reader.provider, [*going, *self.timerless])",
        "            pass",
    ),
    Mutant(
        "a deletion is confirmed before it is reported",
        "        if self.context.confirmer is None:\n            confirmed()",
        "        if True:\n            confirmed()",
    ),
    Mutant(
        "an order to recover what has failed makes it younger",
        "    if state is State.FAILED and updated is not None and (latest is None or latest < updated):",
        "    if False:",
    ),
    Mutant("a 404 alone is not the end of what was deleted", "        if left is None:", "        if True:"),
    Mutant(
        "a listing that is none ends the sweep",
        "    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):\n        raise",
        "    if False:\n        raise",
    ),
    Mutant(
        "a failure is no success",
        "    if any(result.failed or result.outcome is Outcome.ABANDONED for result in report.results):",
        "    if False:",
    ),
    Mutant(
        "a heartbeat keeps a lease alive",
        " if held.record.sort is Liveness.HEARTBEAT else None\n        now, record",
        " if held.due is None else held.due\n        now, record",
    ),
    Mutant(
        "a deletion that may pass is tried again",
        "        self.retryable = self.retryable or error.retryable or isinstance(error, CircuitOpenError)",
        "        self.retryable = False",
    ),
)

# Of owners, evidence and timers: the model has processes, a disk and time for them, the promise some processes.
OF_THE_HOST = (
    Mutant(
        "an owner that lives is not dead",
        'return OwnerProcess(name, Fate.ALIVE, "it runs")',
        'return OwnerProcess(name, Fate.DEAD, "it runs")',
    ),
    Mutant("all owners of a group must be dead", "if key is not None and key in self._living:", "if False:"),
    Mutant(
        "an owner that the image names is none",
        "labels = resource.own_labels if is_own else resource.labels or {}",
        "labels = resource.labels or {}",
    ),
    Mutant(
        "orphaned_for is waited for",
        "_condition(Reason.ORPHANED, orphan.since, policy.orphaned_for)",
        "_condition(Reason.ORPHANED, orphan.since, timedelta(0))",
    ),
    Mutant("what was just started is no orphan", "since = max(base, *(", "since = min(base, *("),
    Mutant(
        "a process of another host is not proven to be dead",
        "if label.host not in (machine.id, machine.whole_id):",
        "if False:",
    ),
    Mutant(
        "a process of another PID namespace is not proven to be dead",
        "if label.host == machine.id:\n        seen",
        "if True:\n        seen",
    ),
    Mutant("a process that is hidden is not proven to be dead", "if seen.presence is Presence.HIDDEN:", "if False:"),
    Mutant("another boot may be another host's", "    if not knows_boot:", "    if False:"),
    Mutant(
        "globs that have matched nothing prove nothing",
        "if not found and _named(rule) not in self._known.matched:",
        "if False:",
    ),
    Mutant(
        "a runner that may have made it keeps it",
        "return unclear or self.oldest <= shifted(resource.created_at, IN_FLIGHT)",
        "return unclear",
    ),
    Mutant(
        "a runner keeps what an earlier one has made and it may have taken over",
        "return run is None or any(",
        "return run is not None and any(",
    ),
    Mutant(
        "evidence that cannot be saved keeps nothing",
        '            return f"an internal error, {type(error).__name__}"',
        "            raise",
    ),
    Mutant(
        "evidence that hangs keeps nothing",
        "with anyio.move_on_after(PATIENCE):",
        "with anyio.move_on_after(3600):",
    ),
    Mutant(
        "the safety net is for what nothing keeps but its age",
        "d.owner is not None and not d.reap and d.reason in _ONLY_AGE and",
        "d.owner is not None and not d.reap and",
    ),
)

# Of two features together, which neither sort of worlds has: tests of the very case notice them.
OF_PAIRS = (
    Mutant(
        "a quota does no more than its own time lets it",
        "result[i] = replace(wider[i], ",
        "result[i] = replace(going[i], ",
    ),
    Mutant(
        "what a cap holds back is asked for what it is linked to",
        "if unknown := may_be_linked(staying):",
        "if unknown := may_be_linked(decisions):",
    ),
    Mutant(
        "what a cap holds back keeps what it uses",
        "place not in found and (place in used or ",
        "place not in found and (",
    ),
    Mutant(
        "of a living project only a policy for one-off containers takes one",
        "or (resource.alone and not policy.oneoff):",
        "or False:",
    ),
    Mutant(
        "what stays of a project that was to go is no leftover when a person removes it",
        "key is not None and key in stay",
        "False",
    ),
    Mutant(
        "the label of two projects of one name claims neither",
        "seen.inherited | {PROJECT_LABEL, SESSION_LABEL}",
        "seen.inherited",
    ),
    Mutant(
        "what came back is no leftover by a sweep that did not list it",
        "replace(entry, free_at=NOT_REAPED) if entry.group in back else entry",
        "entry",
    ),
    Mutant(
        "the network of what a lease has left counts for leases",
        "return decision.reason is Reason.LEASE_ENDED or follows",
        "return decision.reason is Reason.LEASE_ENDED",
    ),
    Mutant(
        "a quota takes along what goes with the project",
        "return not decision.resource.kind.opt_in or decision.reason is Reason.GROUP_REAPED",
        "return not decision.resource.kind.opt_in",
    ),
    Mutant(
        "what goes with its project is looked at again by the policy that takes it along",
        "remembered = replace(remembered, free_at=now, policy=decision.policy)",
        "pass",
    ),
    Mutant(
        "what a sweep does not list is looked at for its use all the same",
        'entries[key] = usage.after(before, Kind(kind), id_, before.what.split(" ")[1:], moment)',
        "entries[key] = before",
    ),
    Mutant(
        "an image that is used by its digest is used",
        "self._repositories.add(_repository(reference))",
        "pass",
    ),
    Mutant(
        "an image that is pulled again is young",
        "max(here, resource.created_at, resource.arrived_at or here)",
        "max(here, resource.created_at)",
    ),
    Mutant(
        "a stream whose engine may have dropped events has a gap",
        "was_queue_long = len(self._read_at) == QUEUE and at <= self._read_at[0]",
        "was_queue_long = False",
    ),
    Mutant(
        "a stream that was interrupted for too long has a gap",
        "is_unconnected = is_first and self._start is not None",
        "is_unconnected = False",
    ),
    Mutant(
        "a stream whose engine's clock is set back has a gap",
        " or at < self._newest - DISORDER:",
        ":",
    ),
    Mutant(
        "a stream that has told nothing lately is not believed",
        "if oldest is None or _key(oldest) not in self._recent:",
        "if oldest is None:",
    ),
    Mutant(
        "what was used before the record began is not known",
        " or begin < self._start:",
        ":",
    ),
    Mutant(
        "a use of what lies on something is a use of that",
        "base._replace(last=max(base.last, top.last), had=base.had or top.had)",
        "base",
    ),
    Mutant(
        "a volume waits for the one that lies on it",
        "self.context.check_below(resources, {d.resource.id for d in self.decisions})",
        "pass",
    ),
    Mutant(
        "a volume of no project keeps what it lies on",
        "if resource.kind is Kind.VOLUME and resource.uses:",
        "if False:",
    ),
    Mutant(
        "an image that was built again since is not its project's",
        "return None if other is None else f",
        "return None if True else f",
    ),
    Mutant(
        "an image that a cache gave once more since its project's containers ended stays",
        "image.tagged_at is not None and image.tagged_at > last",
        "False",
    ),
    Mutant(
        "an image that was built again when its project had gone is no leftover",
        "remembered is not None and tagged is not None and tagged > remembered.free_at",
        "False",
    ),
    Mutant(
        "what a lease has left is kept by a volume without a label that lies on it",
        " or (found.kind is Kind.VOLUME and bool(found.uses))",
        "",
    ),
    Mutant(
        "a link may come with a new connection to the same network",
        " or not self.endpoints >= endpoints(row)",
        "",
    ),
    Mutant(
        "a link at a network means whatever has the name now",
        "self.directory.ids(Links(found.containers)) | links_at_networks(row)",
        "self.directory.ids(Links(found.containers))",
    ),
    Mutant(
        "nothing goes for a disk that cannot be measured any more",
        " and not (self.stop.why or self.problem):",
        " and not self.stop.why:",
    ),
    Mutant(
        "what was renamed is owned by its old name no more",
        "if resource.kind.runs and not by.endswith(_IN_PROJECT):",
        "if False:",
    ),
    Mutant(
        "a network is looked at once more before its deletion is tried again",
        "[resource for resource in resources if resource.kind.stage < Kind.VOLUME.stage]",
        "[resource for resource in resources if resource.kind.runs]",
    ),
    Mutant(
        "what goes with its project is no leftover before that is gone",
        "NOT_REAPED if resource.kind.opt_in else now if decision.deletes else now + grace",
        "now if decision.deletes else NOT_REAPED if resource.kind.opt_in else now + grace",
    ),
    Mutant(
        "the cap of leases keeps no policy's sweep from learning",
        "if options.learns:\n            stays",
        "if options.learns and self.cap is None:\n            stays",
    ),
    Mutant(
        "a lease that another process watches has not ended",
        "        if record.sort is sort:\n            raise _watched_elsewhere(record)\n",
        "",
    ),
    Mutant(
        "of two processes that hold a lease by its name the last one gives it back",
        "if self._is_held_by_others(name, requester):",
        "if False:",
    ),
    Mutant(
        "of two blocks that hold a lease by its name the last one gives it back",
        "        if self._let_go() and self._taken:\n",
        "        self._let_go()\n        if self._taken:\n",
    ),
    Mutant(
        "a label that is no session's own is claimed from the line on",
        "        if named.claim.of_one_session:\n",
        "        if True:\n",
    ),
    Mutant("a claim of a run ends with its command", "float(over[0]) if over else time.time()", "time.time()"),
    Mutant(
        "a lease that was ended takes nothing that was made later",
        "[mine if ending is None or mine.ending is not None else",
        "[mine if ending is None else",
    ),
    Mutant("a state directory that is emptied ends no living lease", "if self._edition and not is_there(", "if False and ("),
    Mutant(
        "what another host has seen of its processes proves nothing here",
        'f"{identity} seen from {self._machine.whole_id}"',
        "identity",
    ),
    Mutant("a holder that is stopped is waited for", " or held.record.holder.is_stopped:", ":"),
    Mutant(
        "a bug of the watch ends no lease that a connection holds",
        "        self.close_connections()  # who holds",
        "        pass  # who holds",
    ),
    Mutant(
        "what another client changes is no deletion under way",
        "(deleted and Action.DELETE in resource.changed_by)",
        "deleted",
    ),
    Mutant(
        "what has failed and is written to stays",
        '"was written to": _is_written_to(listed_at, before, now) and not stopped_by_us,',
        "",
    ),
    Mutant(
        "what was stopped again since it was listed stays",
        "return after > shifted(listed_at, -LATE)",
        "return False",
    ),
    Mutant(
        "an empty page is no end of the listing",
        'if following is None and (page["items"] or not asked):',
        "if following is None:",
    ),
    Mutant(
        "an image that a container has mounted is used",
        "used = {id_ for id_, tags in self._images.items() if images.may_mean(id_, tags)}",
        "used = set()",
    ),
    Mutant("a mounted image may have lost its tag", "(*image.tags, *former_names.get(image.id, ()))", "image.tags"),
    Mutant("a part of a manifest list stays", "self._of = await self._read(call)", "await self._read(call)"),
    Mutant("an engine with live-restore may have been started since", " and not await _may_keep_bridge(connection)", ""),
    Mutant(
        "a label of an anonymous volume may keep its container",
        "{**self.volume_labels, **(self.labels or {})} if self.volume_labels else self.labels or {}",
        "self.labels or {}",
    ),
    Mutant("a link at a network is one", 'texts(table(place).get("Links"))', "()"),
    Mutant(
        "a mounted folder of an anonymous volume keeps who has the volume",
        " | directory.holders(folders)",
        "",
    ),
    Mutant(
        "the end of a run before is no stop of this one",
        " or started - resource.stopped_at > SAME_RUN",
        "",
    ),
    Mutant(
        "what is in a container's control group keeps it",
        'containers |= set(_ID.findall(text(host.get("CgroupParent")) or ""))',
        "containers |= set()",
    ),
    Mutant("an overlay over a volume's folder is a use of that", "        found |= self.holders(links.containers)\n", ""),
    Mutant("a volume that is mounted from another one's folder is a use of that", " | directory.below(volumes)", ""),
    Mutant(
        "volumes that are new to a later listing are asked for",
        "if may_go and not mounted <= self._asked_for:",
        "if may_go and not self._asked_for:",
    ),
    Mutant(
        "any anonymous volume may be in use while it is not known which volumes lie on others",
        "return frozenset(self._holders.keys() - volumes if volumes else ())",
        "return frozenset()",
    ),
    Mutant(
        "a label of an image to which nothing was added is that one's",
        "[*under[one.id], *_tagged_below(one, images)]",
        "under[one.id]",
    ),
    Mutant("a stack's volume is a Swarm's", '    "com.docker.stack.": "a Swarm stack\'s",', ""),
    Mutant(
        "a member that changes before the last listing keeps the others",
        "        self._check_members(members, first)\n        there",
        "        self._check_known(members, first)\n        there",
    ),
    Mutant(
        "only the endpoint that was recorded has the container of a lease",
        "(site.id, resource.id) in self.containers",
        "any(id_ == resource.id for _, id_ in self.containers)  # type: ignore[attr-defined]",
    ),
    Mutant(
        "the record of another container proves nothing",
        "not in resource.own_labels and not self._has_made_container(resource, site)",
        "not in resource.own_labels and not self.containers",
    ),
    Mutant("an answer about another container is no record", 'if row.get("Id") != container or own', "if own"),
    Mutant(
        "labels are remembered of the engine that had the container alone",
        'if content["engine"] != self._engine:',
        "if False:",
    ),
    Mutant(
        "labels are remembered of a container with these labels alone",
        "return keys if digest == _digest(container) else None",
        "return keys",
    ),
    Mutant(
        "a guess at whose labels they are is not remembered",
        "if container.id in proven and container.inherited is not None",
        "if container.inherited is not None",
    ),
    Mutant(
        "pressure takes no more than its turn, whatever a cap of leases holds back",
        "if options.choose is not None and not stops_policies(self.cap):",
        "if options.choose is not None and self.cap is None:",
    ),
    Mutant(
        "what runs although it was asked to stop is judged as it is now",
        "(r.id not in asked or r.state is State.RUNNING) and",
        "r.id not in asked and",
    ),
    Mutant(
        "what was made while a sweep waits is another run's",
        "return resource.endpoint in self.there and resource.id not in self.there[resource.endpoint]",
        "return False",
    ),
    Mutant(
        "by a clock that was set back a lease claims nothing that is made after its end",
        "return timedelta(seconds=seconds) if seconds > CLOCK_STEP else timedelta(0)",
        "return timedelta(0)",
    ),
    Mutant(
        "what another container has used is no leftover",
        "replace(before, free_at=NOT_REAPED) if is_used else before",
        "before",
    ),
    Mutant(
        "the last look is at the owners of the whole session",
        "return Proofs(named, matched, rules, self._sessions)",
        "return Proofs(named, matched, rules)",
    ),
    Mutant(
        "what has living forks gets no timer that would destroy it",
        'await self._check_forks(resource.id, "the platform\'s timers would destroy it")',
        "pass",
    ),
    Mutant(
        "a one-off container is one of its project when it is inspected",
        "wanted = [listed[resource.id] for resource in wanted]",
        "wanted = list(wanted) if listed else []",
    ),
    Mutant(
        "no age counts the time in which its host slept",
        "return max(sum(jumps, timedelta(0)), timedelta(0))",
        "return timedelta(0)",
    ),
    Mutant(
        "a project whose deletion was not answered has not gone",
        "gone |= {id_ for unit in units for id_ in unit.unanswered} - self.there",
        "gone |= {id_ for unit in units for id_ in unit.unanswered}",
    ),
    Mutant(
        "what the index lacks keeps what it is linked to and its session",
        "await self._add_lacking(found, unreadable, call)",
        "pass",
    ),
    Mutant(
        "what is new and the index lacks keeps what it is linked to",
        "await self._add_newest(found, listed.ids, listing)",
        "pass",
    ),
    Mutant(
        "what may have more forks than are listed stays",
        "if len(forks) >= FORKS_LISTED:",
        "if not forks and id_ == why:",
    ),
    Mutant(
        "what is being deleted keeps its session for an hour",
        "return is_leaving(resource) and resource.unreadable is None and is_stuck(resource, now)",
        "return is_leaving(resource) and resource.unreadable is None",
    ),
    Mutant(
        "what has living forks is not archived",
        'await self._check_forks(resource.id, "archiving destroys it on its runner")',
        "pass",
    ),
)
