#!/bin/bash
# The command of the container libvirt: libvirtd, so that guests are born below
# the guests' pod.
#
# That pod is the guests' share of the node: its limits hold them, and they
# outlive this container, its pod, and libvirtd. They are in its cgroup:
#
#     <the guests' pod>/guests/libvirtd                libvirtd
#     <the guests' pod>/guests/machine/qemu-N-NAME...  guests
#
# libvirt puts guests below the root of the cgroups that it sees. Therefore it
# runs in a cgroup namespace whose root is `guests`. It has to be in it itself:
# the kernel lets nobody move a process across the root of a namespace (cgroup2
# is mounted with nsdelegate). And as a cgroup that hands controllers to its
# children has no processes of its own, libvirtd has a leaf.
#
# The driver writes which pod it is, once it runs (RECORD):
#     {"uid": "...", "name": "guests-<node>", "namespace": "...",
#      "container": "..."}
# Whichever comes first waits for the other.
#
# The CPUs and memory nodes that the kubelet gives to the pod are those of its
# container only: its pod's cgroup has all. So `guests` is kept equal to the
# container, here rather than by nova-compute: this sees the node's tree for
# writing already, and the kernel holds guests to the set also while
# nova-compute is away, and whatever it believes.
#
# What it needs of its pod: privileged, hostPID (guests end with the first
# process of their PID namespace), /run/nova-k8s of the node, and no D-Bus of
# the node (through it, machined would put guests elsewhere).
#
# Arguments: those of libvirtd.

set -u

tree=/sys/fs/cgroup
record=${RECORD:-/run/nova-k8s/guests-pod.json}
# What starts libvirtd, beside this.
libvirtd=${0%/*}/libvirtd.sh
interval=2
# How often the CPUs are looked at: a set that changes holds within a second.
often=0.5

say() {
    echo "libvirt.sh: $*" >&2
}

fail() {
    say "$*"
    exit 1
}

# The UID of the guests' pod; nothing where it is not known yet.
recorded_uid() {
    sed -n 's/.*"uid": *"\([^"]*\)".*/\1/p' "$record" 2>/dev/null
}

# The cgroup of the pod with this UID, whatever the kubelet's cgroup driver.
pod_cgroup() {
    find "$tree" -maxdepth 5 -type d \
        \( -name "*pod$1" -o -name "*pod${1//-/_}.slice" \) -print -quit
}

# The cgroup of the container in the pod's cgroup $1 that the record names.
# It is called often, so that no program is started for it.
container_cgroup() {
    local text id each
    { text=$(< "$record"); } 2>/dev/null || return
    id=${text#*\"container\": \"}
    [ "$id" != "$text" ] || return
    id=${id%%\"*}
    [ "$id" ] || return
    for each in "$1/$id" "$1"/*-"$id.scope"; do
        [ ! -d "$each" ] || echo "$each"
    done
}

# Gives the container's CPUs and memory nodes to `guests` ($1), where that is
# not so yet. What is not known changes nothing.
confine() {
    local guests=$1 container name allowed present
    container=$(container_cgroup "${guests%/guests}")
    [ "$container" ] || return 0
    for name in cpuset.cpus cpuset.mems; do
        allowed='' present=''
        read -r allowed 2>/dev/null < "$container/$name.effective"
        read -r present 2>/dev/null < "$guests/$name"
        [ "$allowed" ] && [ "$allowed" != "$present" ] || continue
        if echo "$allowed" 2>/dev/null > "$guests/$name"; then
            say "guests may use $name $allowed, before: ${present:-all}"
        fi
    done
}

# Like watch(), it stays in the cgroup of the container.
keep_confined() {
    while [ -d /proc/$$ ]; do
        confine "$1"
        sleep "$often"
    done
}

# Every cgroup `guests` of a pod, not one of a container, in which guests live.
with_guests() {
    local machine
    find "$tree" -maxdepth 7 -type d \
        -regex '.*pod[0-9a-f_-]+\(\.slice\)?/guests/machine' 2>/dev/null |
        while read -r machine; do
            ! grep -qs '^populated 1$' "$machine/cgroup.events" ||
                dirname "$machine"
        done
}

# Where guests are to be born; nothing where that is not known yet. Where there
# are guests already it is with them, also when their pod is not the recorded
# one any more (it was deleted by force): libvirtd kills guests whose cgroup it
# cannot see.
guests_cgroup() {
    local uid pod inhabited
    uid=$(recorded_uid)
    pod=${uid:+$(pod_cgroup "$uid")}
    inhabited=$(with_guests)
    if [ -z "$inhabited" ]; then
        echo "${pod:+$pod/guests}"
    elif [ "$pod" ] && grep -qxF "$pod/guests" <<< "$inhabited"; then
        echo "$pod/guests"
    else
        head -n 1 <<< "$inhabited"
    fi
}

# Sets guests.
wait_for_guests_cgroup() {
    local told=
    guests=$(guests_cgroup)
    until [ "$guests" ]; do
        if [ ! "$told" ]; then
            say "waiting for the guests' pod: $record names none whose" \
                "cgroup is below $tree"
            told=1
        fi
        sleep "$interval"
        guests=$(guests_cgroup)
    done
}

# A process, other than libvirtd, that has the namespace already.
inhabitant() {
    find "$1" -mindepth 1 -path "$1/libvirtd" -prune -o \
        -name cgroup.procs -exec cat {} + 2>/dev/null | head -n 1
}

# Ends the process $1, and with it this container, when guests are to be born
# elsewhere than in $2.
watch() {
    local now
    while sleep "$interval"; do
        now=$(guests_cgroup)
        if [ "$now" ] && [ "$now" != "$2" ]; then
            say "the guests' pod is another one now: starting anew in $now"
            kill -TERM "$1"
            return
        fi
    done
}

# Enter `guests` ($1), and its namespace; go on as `inside`. It has mounts of
# its own, on top of what the container gets from the node: watch() has to see
# the whole tree.
enter() {
    local guests=$1 process controller
    shift
    mkdir -p "$guests/libvirtd"
    # What a libvirtd before this one has left, if it was killed.
    echo 1 > "$guests/libvirtd/cgroup.kill"
    while grep -qs '^populated 1$' "$guests/libvirtd/cgroup.events"; do
        sleep 0.1
    done
    process=$(inhabitant "$guests")
    if [ "$process" ]; then
        echo $$ > "$guests/libvirtd/cgroup.procs" || return
        exec nsenter "--cgroup=/proc/$process/ns/cgroup" -- \
            unshare --mount --propagation slave -- \
            "$BASH" "$0" --inside "$guests" "$@"
    fi
    # Nobody has the namespace. It is made by who is in its root; and nobody
    # can be, while the children have controllers.
    find "$guests" -mindepth 1 -depth -type d -exec rmdir {} \; || return
    # shellcheck disable=SC2013
    for controller in $(cat "$guests/cgroup.subtree_control"); do
        echo "-$controller" > "$guests/cgroup.subtree_control" || return
    done
    echo $$ > "$guests/cgroup.procs" || return
    exec unshare --cgroup --mount --propagation slave -- \
        "$BASH" "$0" --inside "$guests" "$@"
}

inside() {
    local guests=$1 controller fresh
    shift
    mkdir -p "$guests/libvirtd"
    echo $$ > "$guests/libvirtd/cgroup.procs" || return
    # shellcheck disable=SC2013
    for controller in $(cat "$guests/cgroup.controllers"); do
        echo "+$controller" > "$guests/cgroup.subtree_control" || return
    done
    [ "$(cat /proc/self/cgroup)" = 0::/libvirtd ] ||
        fail "the namespace found is not that of $guests:" \
            "$(cat /proc/self/cgroup)"
    # Over what is mounted there cgroup2 cannot be mounted: EBUSY.
    fresh=$(mktemp -d)
    mount -t cgroup2 cgroup2 "$fresh" &&
        mount --bind "$fresh" "$tree" || return
    say "guests are born in $guests"
    exec "$BASH" "$libvirtd" --followed "$@"
}

main() {
    [ -e "$tree/cgroup.controllers" ] ||
        fail "$tree is not cgroup v2, which is needed to hold guests"
    [ $$ != 1 ] ||
        fail "the pod needs hostPID: true: guests would end with libvirtd"
    [ ! -e /run/dbus/system_bus_socket ] ||
        fail "/run/dbus of the node is mounted: machined would put guests" \
            "outside of the guests' pod"
    wait_for_guests_cgroup
    mkdir -p "$guests"
    confine "$guests"
    # None of them is on libvirtd's way: they stay in the cgroup of the
    # container.
    watch $$ "$guests" &
    keep_confined "$guests" &
    "$BASH" "$libvirtd" --follow $$ restart &
    enter "$guests" "$@" || fail "$guests cannot be entered"
}

case ${1-} in
    --inside)
        shift
        inside "$@" || fail "$1 cannot be used"
        ;;
    --functions) ;;
    *) main "$@" ;;
esac
