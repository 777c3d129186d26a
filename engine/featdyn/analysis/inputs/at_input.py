"""A recorded network with its input as the only cut, for analyses that mask what it is given."""

from __future__ import annotations

from functools import partial

from torch import nn

from featdyn.analysis.inputs.features_at_cuts import Batches, Features
from featdyn.analysis.inputs.one_input import of_one_input
from featdyn.analysis.inputs.stitchable import Stitchable
from featdyn.analysis.inputs.weights import States, network_of, refuse_other_function
from featdyn.capture.call import Call
from featdyn.capture.tap import device_of
from featdyn.networks.whole import at_input
from featdyn.store import Run


def whole_network(run: Run, given: nn.Module | None, call: Call, *, checked: bool = False) -> Stitchable:
    """Return the run's network with its input as the cut, whether or not it comes apart elsewhere.

    ``call`` says how the model is asked, ``checked`` that it was compared with what was recorded. Raises NetworkError
    where it is another.
    """
    network = network_of(run, given)
    model = of_one_input(run, network, call)
    batch, states = Batches(run, device_of(model))[0], States(run, model)
    if given is not None and not checked:
        refuse_other_function(run, model, states, batch)
    cut = at_input(model, batch.inputs)
    read = Features(run, model, [cut], states, {cut.name: "recomputed"})
    again = partial(whole_network, run, given, call, checked=True)
    return Stitchable(
        model, [cut], states, {cut.name: "recomputed"}, read, again, cut.method, network=network, call=call
    )
