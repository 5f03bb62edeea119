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

"""Writes the inventory to Placement, beside Nova's own way.

Nova's resource tracker writes from a cached generation, after a while of
work. In a storm of boots, each of whose allocations raises the generation,
that is a conflict (409) nearly always: an error in the log each time, and an
exception for the claim that happens to write after the fourth. Here only one
request lies between the generation and the write, and a conflict is what it
is: a reason to look again.
"""

from nova_k8s import errors

# The first microversion that takes reserved equal to total.
VERSION = '1.26'

# How often it is tried at once; the publisher tries again a little later.
ATTEMPTS = 4

# What is bounded by limits. The allocation ratio is not: it may have been set
# through the API.
FIELDS = ('total', 'reserved', 'min_unit', 'max_unit', 'step_size')


def merge(present, wanted):
    """Return the inventories to write.

    :param present: records by resource class, as Placement has them
    :param wanted: those that may differ. A class that Placement does not have
        is Nova's to write.
    """
    return {
        resource_class: dict(record, **{
            field: wanted[resource_class][field] for field in FIELDS
        } if resource_class in wanted else {})
        for resource_class, record in present.items()}


def differ(present, wanted):
    """Whether they differ in more than allocation ratios."""
    return (present.keys() != wanted.keys() or
            merge(present, wanted) != present)


def usages(client, provider):
    """Return what is allocated of a provider, by resource class.

    :raises errors.NotWritten: when Placement does not answer
    """
    url = f'/resource_providers/{provider}/usages'
    answer = client.get(url, version=VERSION)
    if answer.status_code != 200:
        raise errors.NotWritten(
            f'Placement answered {answer.status_code} to {url}: '
            f'{" ".join(answer.text.split())}')
    return answer.json()['usages']


def write(client, provider, wanted, given_up):
    """Have Placement have what is wanted.

    One that was given up must write nothing later that others have changed
    since: it looks between the generation and the write, and what it wrote
    with an older generation Placement refuses.

    :param client: Nova's SchedulerReportClient
    :param provider: UUID of the resource provider
    :param wanted: as for merge()
    :param given_up: the event that says so, see deadline.call()
    :returns: (records by resource class, generation) as Placement has them
    :raises errors.NotWritten: when Placement did not take it
    """
    url = f'/resource_providers/{provider}/inventories'
    for _ in range(ATTEMPTS):
        answer = client.get(url, version=VERSION)
        if answer.status_code != 200:
            break
        found = answer.json()
        inventories = merge(found['inventories'], wanted)
        if inventories == found['inventories']:
            return inventories, found['resource_provider_generation']
        if given_up.is_set():
            raise errors.NotWritten('given up')
        answer = client.put(url, {
            'resource_provider_generation':
                found['resource_provider_generation'],
            'inventories': inventories}, version=VERSION)
        if answer.status_code == 200:
            found = answer.json()
            return (found['inventories'],
                    found['resource_provider_generation'])
        if answer.status_code != 409:
            break
    raise errors.NotWritten(
        f'Placement answered {answer.status_code} to {url}: '
        f'{" ".join(answer.text.split())}')
