"""What two processes of membudget must agree on.

Covers: the policy a person writes (`policy`), its built-in bases (`profiles`), the plan that comes of both
(`plan`, `compile`, `resolve`), the messages on the two sockets (`control_api`, `sidecar_api`) and the names of
metrics (`metric_names`). Everything here is a value or a pure function, but for `kept_file`, the format both
sides keep their last plan in. Imports nothing of membudget: every other member may import it.
"""

CONTRACT_VERSION = "1.0"
"""Major.minor of the messages. A reader serves its own major and ignores fields it does not know."""
