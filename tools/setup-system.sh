#!/bin/sh
# Installs those packages of bindep.txt that are missing, and makes the user
# that libvirt wants. It does without the command bindep: on a fresh machine
# python3-venv, which it would take to get it, is one of the packages.

set -eu
cd "$(dirname "$0")/.."

if ! command -v dpkg-query >/dev/null; then
    echo "This is neither Debian nor Ubuntu: whether the packages that" \
         "bindep.txt stands for are installed is not checked."
    exit 0
fi

missing=
for package in $(sed -n 's/^\([^# ]*\) .*platform:dpkg.*/\1/p' bindep.txt); do
    status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) ||
        status=unknown
    [ "$status" = installed ] || missing="$missing $package"
done

if [ -n "$missing" ]; then
    as_root=
    if [ "$(id -u)" != 0 ]; then
        # Asking for a password is fine where somebody can answer.
        if command -v sudo >/dev/null &&
                { [ -t 0 ] || sudo -n true 2>/dev/null; }; then
            as_root=sudo
        else
            echo "System packages are missing; as root, please run" >&2
            echo "    apt-get install --no-install-recommends$missing" >&2
            exit 1
        fi
    fi
    echo "Installing system packages with apt-get:$missing"
    $as_root apt-get update -q
    # shellcheck disable=SC2086
    $as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -q -y --no-install-recommends $missing
fi

# Run by root, libvirt's QEMU driver does not start without this user, even
# where qemu.conf names another. The package that makes it,
# libvirt-daemon-system, also starts libvirt's daemon; nothing here wants one.
if [ "$(id -u)" = 0 ] && ! getent passwd libvirt-qemu >/dev/null; then
    echo "Adding the system user libvirt-qemu"
    useradd --system --user-group --no-create-home \
        --home-dir /var/lib/libvirt --shell /usr/sbin/nologin libvirt-qemu
fi
