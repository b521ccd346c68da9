"""What Flower runs at a site, by the name that the developer's signed app says.

Where the site's data lie is the node's own setting: nothing in a message names a file.
"""

from __future__ import annotations

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from triparty.device.federation.answer import answer
from triparty.device.federation.recordings import learner_of

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Trains on this site's recorded outputs."""
    return answer(message, lambda: learner_of(context.node_config))
