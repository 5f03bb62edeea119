#!/bin/bash
# Starts libvirtd, which listens to those of the other nodes where it has
# certificates: they bring guests by live migration.
#
#     /etc/pki/CA/cacert.pem                      whom it believes
#     /etc/pki/libvirt/{server,client}cert.pem    what it shows
#     /etc/pki/libvirt/private/{server,client}key.pem
#
# These are libvirt's own paths, and libvirt.yaml has the Secret libvirt-tls
# there. Without it, libvirtd serves this node alone. Where libvirtd.conf says
# listen_tcp = 1, it listens without any.
#
# New certificates in the Secret, the kubelet writes here within a minute or
# two. libvirtd is told, and goes on.
#
# Environment:
#     LISTEN_ADDR        where it listens; all addresses where it is empty
#     LISTEN_NETWORK     the same: this node's address in it (10.1.2.0/24)
#
# Arguments: those of libvirtd, or
#     --follow PID [restart]    tell that libvirtd of new certificates, until
#                               it ends; restart: end it when there were none
#     --followed ...            start libvirtd, which somebody follows already
#     --functions               for tests

set -u

conf=${LIBVIRTD_CONF:-/etc/libvirt/libvirtd.conf}
pki=${PKI:-/etc/pki}
interval=${INTERVAL:-10}
followed=
server=(
    "$pki/CA/cacert.pem"
    "$pki/libvirt/servercert.pem"
    "$pki/libvirt/private/serverkey.pem"
)

say() {
    echo "libvirtd.sh: $*" >&2
}

fail() {
    say "$*"
    exit 1
}

needs_certificates() {
    ! grep -q '^ *listen_tcp *= *1' "$conf"
}

has_certificates() {
    local file
    for file in "${server[@]}"; do
        [ -s "$file" ] || return
    done
}

fingerprint() {
    cat "${server[@]}" 2>/dev/null | cksum
}

# Where to listen; nothing where it is everywhere.
address() {
    local network=${LISTEN_NETWORK-} found
    if [ ! "$network" ]; then
        echo "${LISTEN_ADDR-}"
        return
    fi
    found=$(ip -oneline address show to "$network" |
        sed -n '1s/.* inet6\? \([^ /]*\).*/\1/p')
    [ "$found" ] || fail "this node has no address in $network"
    echo "$found"
}

# libvirtd.conf, with the address of this node.
rendered() {
    local listen_addr
    listen_addr=$(address) || return
    cat "$conf"
    [ ! "$listen_addr" ] || echo "listen_addr = \"$listen_addr\""
}

# What the process $1, libvirtd, does not see for itself.
follow() {
    local pid=$1 how=${2-} known now listens
    known=$(fingerprint)
    has_certificates && listens=1 || listens=
    while sleep "$interval" && kill -0 "$pid" 2>/dev/null; do
        now=$(fingerprint)
        if [ "$now" = "$known" ] || ! has_certificates; then
            continue
        elif [ ! "$listens" ]; then
            say "there are certificates now: libvirtd listens when it is" \
                "started anew"
            [ ! "$how" ] || kill -TERM "$pid"
            return
        elif virt-admin --quiet --connect libvirtd:///system \
                server-update-tls libvirtd >&2; then
            say "libvirtd has the new certificates"
            known=$now
        else
            # It has said why. Not again and again.
            sleep $((interval * 5))
        fi
    done
}

start() {
    [ "$followed" ] || follow $$ &
    exec libvirtd "$@"
}

main() {
    local file
    if needs_certificates && ! has_certificates; then
        say "no certificates (${server[*]}): libvirtd does not listen, and" \
            "no guest comes here by live migration"
        start --config "$conf" "$@"
    fi
    [ -s "$pki/qemu/ca-cert.pem" ] ||
        say "no certificates in $pki/qemu: guests that move cross the" \
            "network in plain, or not at all where Nova wants them encrypted"
    file=$(mktemp)
    rendered > "$file" || exit
    start --config "$file" --listen "$@"
}

case ${1-} in
    --follow)
        shift
        follow "$@"
        ;;
    --followed)
        shift
        followed=1
        main "$@"
        ;;
    --functions) ;;
    *) main "$@" ;;
esac
