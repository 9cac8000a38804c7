"""What is offered, and that offering it costs nothing."""

import subprocess
import sys
from importlib import import_module

from sfumato_opaque_knapsack.plugin import sfumato_components

HEAVY = ("numpy", "scipy", "torch", "transformers", "httpx", "rich", "cattrs")


def test_the_plugin_module_imports_nothing_heavy():
    code = (
        "import sys, sfumato_opaque_knapsack, sfumato_opaque_knapsack.plugin as p; "
        f"list(p.sfumato_components()); print([m for m in {HEAVY!r} if m in sys.modules])"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        == "[]\n"
    )


def test_the_method_works_without_the_core():
    code = (
        "import sys; sys.modules['sfumato'] = None\n"
        "from sfumato_opaque_knapsack import World, generate, ScriptedExpert\n"
        "import sfumato_opaque_knapsack.ladder\n"
        "print(World(generate('easy', 1)).outcome().score)"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        == "0.0\n"
    )


def test_every_offer_has_its_target_and_settings():
    for spec in sfumato_components():
        module, name = spec.target.split(":")
        target = getattr(import_module(module), name)
        if spec.config:
            module, name = spec.config.split(":")
            target(getattr(import_module(module), name)())
        else:
            target()
