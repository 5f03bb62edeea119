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

"""Moving guests away from a node, by Nova's own API.

plan: what to do about each guest of a node that is drained (pure)
evacuation: the same for a node that is dead (pure)
guests: what Nova shows (values)
nova_api: how Nova answers, and how it may fail (values)
sdk: Nova, as openstacksdk reaches it
engine: the loop that looks, decides and asks
trigger: whether this node is to be drained (pure)
reports: what operators are told (pure)
drainer: the worker of nova-compute that does all this
"""
