"""All kinds by name; importing this loads all that any of them needs."""

from tests.fuzz.kinds import bundles, evaluations, folders, inputs, models

KINDS = {
    kind.name: kind
    for module in (folders, inputs, evaluations, models, bundles)
    for kind in module.KINDS
}
