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

"""Nova's API, as far as a drain needs it, by openstacksdk.

Two lists tell all there is to know, however many guests there are: those of
the servers of a host and of its migrations.
"""

import contextlib
import datetime
import functools

from keystoneauth1 import exceptions as auth_exceptions
from keystoneauth1 import loading
from openstack import connection
from openstack import exceptions
import requests

from nova_k8s.drain import evacuation
from nova_k8s.drain import guests
from nova_k8s.drain import nova_api
from nova_k8s.drain import plan
from nova_k8s import errors

# The tag of a server, its metadata, or an extra spec of its flavor.
WISH = 'nova-k8s:drain'

# How far back a migration that is still under way may have changed last.
LOOK_BACK = datetime.timedelta(days=1)

# From this one on, Nova answers at once and scheduling goes on behind it.
# openstacksdk asks for 2.30, and would wait for the scheduler and two compute
# nodes.
_LIVE_MIGRATE = '2.34'

# Up to 2.94 Nova starts a guest that ran when its node died.
_EVACUATE, _EVACUATE_AND_START = '2.95', '2.94'

# Of the record of a migration, and of the servers it may belong to, when they
# are on another host.
_UNSETTLED = guests.UNDER_WAY | {guests.FINISHED}
_ON_ITS_WAY = ('MIGRATING', 'REBUILD', 'RESIZE', 'VERIFY_RESIZE')

_COMPUTE = 'nova-compute'


@contextlib.contextmanager
def _translated(what):
    """Have the errors of the SDK in words, and in three kinds."""
    try:
        yield
    except exceptions.ForbiddenException as exc:
        raise nova_api.Forbidden(
            f'{what}: Nova answers 403: {_line(exc)}. The account needs the '
            f'role admin, which Nova asks for where hosts are concerned, or '
            f'a policy.yaml of Nova that grants this rule to a role of its '
            f'own') from None
    except (exceptions.BadRequestException, exceptions.ConflictException,
            exceptions.NotFoundException) as exc:
        raise nova_api.Refused(_line(exc)) from None
    except auth_exceptions.Unauthorized as exc:
        raise nova_api.Forbidden(
            f'{what}: the account is not accepted: {_line(exc)}') from None
    except (exceptions.SDKException, auth_exceptions.ClientException,
            requests.RequestException) as exc:
        raise nova_api.Unreachable(f'{what}: {_line(exc)}') from None


def _line(exc):
    """Return what Nova says of an error, in one line."""
    return ' '.join(str(getattr(exc, 'details', None) or exc).split())


class Nova:
    """Nova's API.

    :param connect: returns an openstack.connection.Connection; called when it
        is needed first, which may ask Keystone and Nova
    :param tenants_decide: whether the tags and metadata of servers count
    """

    def __init__(self, connect, tenants_decide=True):
        self._connect = connect
        self._known = None
        self._tenants_decide = tenants_decide

    @property
    def _compute(self):
        if self._known is None:
            self._known = self._connect().compute
        return self._known

    def look(self, host, back=LOOK_BACK):
        """Return the View of a host.

        :param back: how old migrations may be; None for all there are
        :raises Unreachable, Forbidden, Refused:
        """
        query = {'host': host}
        if back:
            query['changes_since'] = (
                datetime.datetime.now(datetime.timezone.utc) -
                back).strftime('%Y-%m-%dT%H:%M:%SZ')
        with _translated('the migrations of the host cannot be listed'):
            # First: what is in both lists then is under way.
            migrations = tuple(_migration(each)
                               for each in self._compute.migrations(**query))
        found = self._servers(compute_host=host)
        here = {each.id for each in found}
        elsewhere = ()
        if any(each.guest not in here and each.status in _UNSETTLED
               for each in migrations):
            elsewhere = self._servers(status=list(_ON_ITS_WAY))
        return guests.View(host, found, migrations,
                           {each.id: each for each in elsewhere})

    def _servers(self, **query):
        with _translated('the servers of the host cannot be listed'):
            found = [self._guest(each) for each in self._compute.servers(
                all_projects=True, **query)]
        return tuple(each for each in found
                     if each.status not in guests.GONE)

    def _guest(self, server):
        fault = server.fault or {}
        flavor = server.flavor
        disks = (flavor.ephemeral or 0) + (flavor.swap or 0) if flavor else 0
        return guests.Guest(
            id=server.id, name=server.name or server.id,
            status=(server.status or 'UNKNOWN').upper(),
            task=server.task_state,
            memory_mb=(flavor.ram or 0) if flavor else 0,
            wish=self._wish(server, flavor),
            fault=' '.join(str(fault.get('message', '')).split()) or None,
            local_disk=bool((server.image and server.image.id) or disks),
            # Nova's power states: 1 is running, 3 is paused.
            powered=server.power_state in (1, 3))

    def _wish(self, server, flavor):
        specs = (flavor.extra_specs if flavor else None) or {}
        if WISH in specs:
            return specs[WISH]
        if self._tenants_decide:
            for tag in server.tags or ():
                if tag.startswith(WISH + '='):
                    return tag.partition('=')[2]
            return (server.metadata or {}).get(WISH)
        return None

    def services(self):
        """Return the Service of every compute host."""
        with _translated('the compute services cannot be listed'):
            return tuple(
                nova_api.Service(
                    each.id, each.host, each.state == 'up',
                    each.status == 'enabled', bool(each.is_forced_down),
                    each.disabled_reason or '')
                for each in self._compute.services(binary=_COMPUTE))

    def service(self, name):
        """Return the Service of a host, or of the host of a node.

        :raises Refused: where there is none
        """
        found = {each.host: each for each in self.services()}
        if name in found:
            return found[name]
        with _translated('the hypervisors cannot be listed'):
            for each in self._compute.hypervisors(details=True):
                host = (each.service_details or {}).get('host')
                if each.name == name and host in found:
                    return found[host]
        raise nova_api.Refused(
            f'Nova knows no compute service on a host {name}, nor a '
            f'hypervisor of that name')

    def check(self, host):
        """Ask for what a drain will ask for, as far as that does nothing.

        :raises Unreachable, Forbidden, Refused:
        """
        self.look(host)
        self.services()

    def disable(self, service, reason):
        self._update(service, status='disabled', disabled_reason=reason)

    def force_down(self, service):
        self._update(service, forced_down=True)

    def enable(self, service):
        self._update(service, forced_down=False)
        self._update(service, status='enabled')

    def _update(self, service, **fields):
        with _translated(f'the compute service of {service.host} cannot be '
                         f'changed'):
            self._compute.update_service(service.id, **fields)

    def act(self, verdict, start=False):
        """Ask for what a Verdict says.

        :param start: whether an evacuated guest that ran is to run again
        :raises Unreachable, Forbidden, Refused:
        """
        guest = verdict.guest.id
        with _translated(f'{verdict.what} of server {guest}'):
            if verdict.what == plan.LIVE:
                self._ask(guest, _LIVE_MIGRATE, {'os-migrateLive': {
                    'host': None, 'block_migration': 'auto'}})
            elif verdict.what == plan.COLD:
                self._compute.migrate_server(guest)
            elif verdict.what == plan.STOP:
                self._compute.stop_server(guest)
            elif verdict.what == plan.CONFIRM:
                self._compute.confirm_server_resize(guest)
            elif verdict.what == plan.ABORT:
                self._compute.abort_server_migration(
                    verdict.migration.id, guest)
            elif verdict.what == evacuation.EVACUATE:
                self._ask(guest, _EVACUATE_AND_START if start else _EVACUATE,
                          {'evacuate': {}})

    def _ask(self, guest, microversion, body):
        exceptions.raise_from_response(self._compute.post(
            f'/servers/{guest}/action', json=body,
            microversion=microversion))

    def why(self, guest):
        """Return why the last action on a guest failed, in Nova's words.

        :returns: None where Nova does not say
        """
        with _translated(f'the actions of server {guest} cannot be listed'):
            # Newest first.
            action = next(iter(self._compute.server_actions(guest)), None)
            if not action:
                return None
            action = self._compute.get_server_action(
                action.request_id, guest)
        for event in reversed(action.events or ()):
            if event.result == 'Error' and event.details:
                return ' '.join(event.details.split())
        return action.message

    def progress(self, guest):
        """Return the Progress of the live migration of a guest, or None."""
        with _translated(f'the migration of server {guest} cannot be seen'):
            for each in self._compute.server_migrations(guest):
                if each.memory_total_bytes:
                    return nova_api.Progress(
                        (each.memory_remaining_bytes or 0) +
                        (each.disk_remaining_bytes or 0),
                        each.memory_total_bytes +
                        (each.disk_total_bytes or 0),
                        each.dest_compute or '')
        return None


def _migration(record):
    return guests.Migration(
        id=int(record.id), guest=record.server_id, kind=record.migration_type,
        status=record.status, source=record.source_compute,
        dest=record.dest_compute)


def from_conf(conf):
    """Return the Nova that nova.conf says.

    :raises errors.Refused: when it says none, or it cannot be loaded
    """
    for group in ('kubernetes_drain', 'service_user'):
        if group in conf and (conf[group].auth_type or
                              conf[group].auth_section):
            break
    else:
        raise errors.Refused(
            'No account to ask Nova for migrations with: neither '
            '[kubernetes_drain] auth_type nor [service_user] auth_type is '
            'set')
    options = conf.kubernetes_drain
    try:
        session = loading.load_session_from_conf_options(
            conf, group, auth=loading.load_auth_from_conf_options(
                conf, group))
    except auth_exceptions.ClientException as exc:
        raise errors.Refused(f'[{group}]: {_line(exc)}') from None
    return Nova(functools.partial(
        connection.Connection, session=session,
        region_name=options.region_name,
        compute_interface=options.valid_interfaces,
        compute_endpoint_override=options.endpoint_override),
        options.tenants_decide)


def from_cloud(name, tenants_decide=True):
    """Return the Nova of a cloud of clouds.yaml, or of the environment.

    :raises errors.Refused: when there is none
    """
    try:
        cloud = connection.from_config(cloud=name)
    except (exceptions.SDKException, auth_exceptions.ClientException) as exc:
        raise errors.Refused(f'The cloud cannot be used: {_line(exc)}; name '
                             f'one with --cloud') from None
    return Nova(lambda: cloud, tenants_decide)
