"""The rule of ownership for a single resource: what nothing owns is kept, and is told what it lacks. Pure."""

from dataclasses import replace

from reaper.core.finding import Finding, keep
from reaper.core.lease import IMAGE_LABEL
from reaper.core.lease_index import Leases, why_not_taken
from reaper.core.model import Kind, Reason, Resource
from reaper.core.owners import Owners, Ownership
from reaper.core.scope import LEASE_LABEL, Scope, as_scope_reads

INHERITED = f"its label {LEASE_LABEL} may be its image's, which carries it, too (label images with {IMAGE_LABEL})"


class OwnershipRule:
    """Whether a resource is owned, and what only looks as if it were.

    Args:
        owners: what owns each of those that were listed together.
        leases: all that are known.
        scope: what is owned by the configuration.
        kinds: that policies may take; others go only with a lease that they were made under.
    """

    def __init__(self, owners: Owners, leases: Leases, scope: Scope, kinds: frozenset[Kind]) -> None:
        self._owners = owners
        self._leases = leases
        self._scope = scope
        self._kinds = kinds

    def finding(self, resource: Resource, owner: Ownership | None) -> Finding:
        """What the rule says of one that this owns, if anything does."""
        if owner is None and resource.kind.opt_in and resource.kind not in self._kinds:
            phrase = "not owned: no lease made it"
            sentence = f"{resource.kind.article} goes only with a lease that it was made under, and none known here has it"
            if (claiming := self._leases.claiming(resource)) is not None:
                phrase = f"lease {claiming.id} ended, creation time unknown"
                sentence = f"lease {claiming.id} claims it, but an engine before Docker 23 does not report when it was made"
            elif (maker := self._leases.maker(resource)) is not None:
                phrase, sentence = f"lease {maker.id} ended, changed since", why_not_taken(resource, maker)
            return keep("owned", Reason.NOT_OWNED, phrase, lambda: sentence)
        if owner is None:
            nearly, why = self._nearly(resource)
            return keep("owned", Reason.NOT_OWNED, f"not owned{nearly}", lambda: f"nothing in [scope] matches it{why}")
        return Finding("owned", None, lambda: f"owned: {owner.by}")

    def by_image(self, resource: Resource) -> Ownership | None:
        """What would own one that is not owned, if labels counted that (may) have come with its image; else None."""
        if resource.inherited is not None and not resource.inherited:
            return None
        return self._owners.owner(as_scope_reads(resource, replace(self._scope, image_labels=True)))

    def _nearly(self, resource: Resource) -> tuple[str, str]:
        """What looks like ownership and is none, as the rest of a phrase and of a sentence; empty when nothing does."""
        if resource.inherited is None and resource.labels:
            return ": image unreadable", "; which of its labels are its own is not known, since its image could not be read"
        if (by := self.by_image(resource)) is not None:
            why = f"; {by.by} is its image's label, not its own, and counts only with [scope] image_labels = true"
            return ": label is its image's", why
        if resource.kind is Kind.IMAGE and (foreign := self._owners.foreign_tags(resource)):
            return f": tag {foreign[0]} is not", f", nor its {'tag' if len(foreign) == 1 else 'tags'} {', '.join(foreign)}"
        if LEASE_LABEL in (resource.inherited or ()):
            return f": {LEASE_LABEL} may be its image's", f", and {INHERITED}"
        if (namesake := self._owners.namesake(resource)) is not None:
            word = resource.group_word
            return f": another {word}'s name", f"; another {word} of the name {resource.group} is owned ({namesake.by})"
        return "", ""
