"""What Flower runs at a site for secure sums, by the name that the developer's app says."""

from __future__ import annotations

from triparty.device.federation.masked import masked_app
from triparty.device.federation.recordings import learner_of

app = masked_app(lambda context: learner_of(context.node_config))
