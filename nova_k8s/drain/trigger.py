# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#      http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

"""Whether this node is to be drained.

Only decisions, from what is seen of the pod and the node. What cannot be seen
now is as it was.
"""

import dataclasses
import typing as ty

from nova_k8s.kube import node as nodes

EVICTION, CORDON, TAINT = 'eviction', 'cordon', 'taint'


@dataclasses.dataclass(frozen=True)
class Seen:
    """What was seen, and must survive a restart.

    :ivar reason: why the node is drained, or None
    :ivar cordoned: whether it was cordoned since that began
    :ivar uncordoned: whether somebody has taken that back
    """

    reason: ty.Optional[str] = None
    cordoned: bool = False
    uncordoned: bool = False

    @property
    def hold(self):
        """Why no further guest is to move, or None."""
        if self.uncordoned:
            return 'the node was uncordoned'
        return None if self.reason else 'the drain was called off'


def see(drain_on, before, ending, node):
    """Return the Seen of now.

    :param drain_on: [kubernetes] drain_on
    :param before: the Seen so far
    :param ending: whether the pod whose limits are the guests' is on its way
        to its end, None where that is not known
    :param node: the kube.node.Node, None where it is not known
    """
    reason = before.reason
    if drain_on == EVICTION and ending is not None:
        reason = 'the pod is being deleted' if ending else None
    elif drain_on == CORDON and node:
        reason = 'the node is cordoned' if node.cordoned else None
    elif drain_on == TAINT and node:
        reason = (f'the node has the taint {nodes.DRAIN}'
                  if node.has_taint(nodes.DRAIN) else None)
    if not reason:
        return Seen()
    if drain_on != EVICTION or not node:
        return dataclasses.replace(before, reason=reason)
    # That a pod ends cannot be taken back. Whoever uncordons the node means
    # that guests are to stay; whoever never cordoned it has only deleted or
    # evicted the pod.
    cordoned = before.cordoned or node.cordoned
    return Seen(reason, cordoned, cordoned and not node.cordoned)
