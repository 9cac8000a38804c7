"""A plugin for the tests: one small stand-in for each shape of problem, and components that misbehave."""

from sfumato import BackendSpec, CommandSpec, ComponentSpec, Finding, ReportSection, hookimpl

PLUGIN_API = 1
SHAPES = "sfumato_toys.shapes"
FAULTS = "sfumato_toys.faults"


@hookimpl
def sfumato_components():
    yield ComponentSpec("task", "toys/pick", target=f"{SHAPES}:PickTask", summary="(a) a batch of one-shot instances")
    yield ComponentSpec("task", "toys/bandit", target=f"{SHAPES}:BanditTask", config=f"{SHAPES}:BanditConfig",
                        summary="(b) a bandit, batched over seeds")
    yield ComponentSpec("task", "toys/coin", target=f"{SHAPES}:CoinTask", summary="(c) a hidden state and its model")
    yield ComponentSpec("task", "toys/cart", target=f"{SHAPES}:CartTask", summary="(d) a plant with its own tick")
    yield ComponentSpec("task", "toys/tools", target=f"{SHAPES}:ToolTask", summary="(e) tools called by code")
    yield ComponentSpec("runtime", "toys/remembering", target=f"{SHAPES}:Remembering", summary="keeps variables")
    yield ComponentSpec("runtime", "toys/forgetting", target=f"{SHAPES}:Forgetting", summary="forgets variables")
    yield ComponentSpec("solver", "toys/best", target=f"{SHAPES}:BestSolver", summary="picks the best item")
    yield ComponentSpec("solver", "toys/greedy", target=f"{SHAPES}:GreedySolver", config=f"{SHAPES}:GreedyConfig",
                        summary="epsilon-greedy")
    yield ComponentSpec("solver", "toys/belief", target=f"{SHAPES}:BeliefSolver", summary="filters and decides")
    yield ComponentSpec("solver", "toys/controller", target=f"{SHAPES}:ControllerSolver", summary="feedback")
    yield ComponentSpec("solver", "toys/coder", target=f"{SHAPES}:CoderSolver", summary="writes code")
    yield ComponentSpec("solver", "toys/trained", target=f"{SHAPES}:TrainedSolver", summary="(f) trains first, may refuse")
    yield ComponentSpec("task", "toys/fault", target=f"{FAULTS}:FaultTask", config=f"{FAULTS}:FaultConfig",
                        summary="misbehaves as told")
    yield ComponentSpec("solver", "toys/noop", target=f"{FAULTS}:NoopSolver", config=f"{FAULTS}:NoopConfig",
                        summary="always says 0")
    yield ComponentSpec("solver", "toys/gpu", target=f"{FAULTS}:NoopSolver", config=f"{FAULTS}:NoopConfig",
                        summary="wants a GPU", backends=(BackendSpec("torch", devices=("cuda",), extra="torch"),))
    yield ComponentSpec("solver", "toys/two-backends", target=f"{FAULTS}:NoopSolver", config=f"{FAULTS}:NoopConfig",
                        backends=(BackendSpec("absentlib", extra="absent"), BackendSpec("numpy")))
    yield ComponentSpec("task", "toys/echo", target=f"{FAULTS}:EchoTask", summary="pays the action", short=True)
    yield ComponentSpec("solver", "toys/noisy", target=f"{FAULTS}:NoisySolver", config=f"{FAULTS}:NoisyConfig",
                        summary="promises what it is told to", short=True)
    yield ComponentSpec("solver", "toys/diary", target=f"{FAULTS}:DiarySolver", config=f"{FAULTS}:DiaryConfig",
                        summary="notes its hours", resources={"cpus": 1, "memory_mb": 200})
    yield ComponentSpec("solver", "toys/timed", target=f"{FAULTS}:DiarySolver", config=f"{FAULTS}:DiaryConfig",
                        summary="its time is its result", timing="exclusive")
    yield ComponentSpec("solver", "toys/meet", target=f"{FAULTS}:MeetSolver", config=f"{FAULTS}:MeetConfig",
                        summary="waits for company")
    yield ComponentSpec("solver", "toys/standing", target=f"{FAULTS}:StandingSolver", config=f"{FAULTS}:StandingConfig",
                        summary="hands the task to another solver", stands_on="solver")
    yield ComponentSpec("runtime", "toys/timed", target=f"{FAULTS}:TimedRuntime", summary="its time is its result",
                        timing="exclusive")
    yield ComponentSpec("task", "toys/file", target=f"{FAULTS}:FileTask", config=f"{FAULTS}:FileConfig",
                        summary="pays what a data file says")
    yield ComponentSpec("evaluator", "toys/half", target=f"{FAULTS}:HalfEvaluator", summary="gives no number for item 0")
    yield ComponentSpec("evaluator", "toys/odd", target=f"{FAULTS}:OddEvaluator", config=f"{FAULTS}:OddConfig",
                        summary="may give no number")


@hookimpl
def sfumato_commands():
    yield CommandSpec("hello", target="sfumato_toys.commands:hello", help="Say hello.")


@hookimpl
def sfumato_doctor():
    yield Finding("ok", "toys", "toys are in the box")


@hookimpl
def sfumato_report_sections():
    yield ReportSection("Path of the cart", target="sfumato_toys.sections:cart", tasks=("toys/cart",))
    yield ReportSection("What the agent wrote", target="sfumato_toys.sections:transcript", tasks=("toys/tools",))
    yield ReportSection("Broken section", target="sfumato_toys.sections:broken", tasks=("toys/coin",))
