"""Other engines: the baselines that a sparse network has to beat, each in a process of its own.

`race` times candidates against each other, `python -m semisparse.eval.peers` does so for one model and every
engine, and says which of them wins.
"""

from semisparse.eval.peers.candidates import Candidate
from semisparse.eval.peers.engines import ENGINES, OWN
from semisparse.eval.peers.race import Race, race

__all__ = ["ENGINES", "OWN", "Candidate", "Race", "race"]
