#!/bin/sh
# The one command of the guests' pod: it holds the pod until the guests are
# gone.
#
# The pod is the guests' share of the node. libvirt (libvirt.sh) makes the
# cgroup `guests` in the pod's own, beside that of this container, and guests
# live in it, not in this container. So they outlive everything but the pod:
# whatever ends the pod (kubectl drain, an eviction) has to wait for them. Told
# to end, this waits until no guest is left, and then ends by itself.
#
# What it needs of the pod:
#   POD_UID                    the pod's metadata.uid (downward API)
#   /node/cgroup, read-only    the node's /sys/fs/cgroup
# A cgroup in `guests` with processes is a guest's, or several guests', but for
# that of libvirtd.

set -u

tree=${NODE_CGROUP:-/node/cgroup}
# In seconds, and how often in a row there has to be no guest: a guest that is
# rebooted hard is gone for a moment.
interval=${INTERVAL:-1}
times=3

say() {
    echo "guests: $*" >&2
}

# The pod's cgroup, with either cgroup driver of the kubelet; nothing where it
# cannot be seen.
pod_cgroup() {
    find "$tree" -maxdepth 5 -type d \( -name "*pod$POD_UID" \
        -o -name "*pod$(echo "$POD_UID" | tr - _).slice" \) 2>/dev/null |
        head -n 1
}

# Ends with 0 where no guest is left. What cannot be seen is taken for a guest.
empty() {
    pod=$(pod_cgroup)
    [ -n "$pod" ] || return 1
    for cgroup in "$pod"/guests/*/; do
        [ -d "$cgroup" ] || continue
        case $cgroup in
            */guests/libvirtd/) continue ;;
        esac
        grep -qs '^populated 0$' "${cgroup}cgroup.events" || return 1
    done
}

hold() {
    ending=
    sleeper=
    # A signal interrupts `wait`, and not `sleep`. One that comes just before
    # it would go unnoticed, so it ends what is waited for.
    trap 'ending=1; kill $sleeper 2>/dev/null' TERM
    until [ "$ending" ]; do
        sleep 3600 &
        sleeper=$!
        [ "$ending" ] || wait "$sleeper"
    done
    kill "$sleeper" 2>/dev/null
    sleeper=
    [ -n "$(pod_cgroup)" ] ||
        say "the cgroup of pod $POD_UID is not below $tree: whether guests" \
            "are left cannot be seen, so this stays"
    empty || say "the pod is to end: waiting for its guests to leave"
    left=$times
    while [ "$left" -gt 0 ]; do
        if empty; then
            left=$((left - 1))
        else
            left=$times
        fi
        sleep "$interval"
    done
    say "no guest is left"
}

hold
