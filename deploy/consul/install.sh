#!/bin/sh
# Installs Consul 1.8.7 from Debian's bullseye suite, whatever suite the machine itself runs. Only Consul and what it
# needs can come from there: the suite is pinned below the machine's own. Running it again changes nothing.
#
# Exit code: 0 Consul is there, 1 it could not be installed, 2 this machine is no Debian or we are not root.
set -eu

VERSION=1.8.7
SOURCES=/etc/apt/sources.list.d/headrace-bullseye.sources
PIN=/etc/apt/preferences.d/headrace-bullseye

say() { echo "consul: $*" >&2; }

installed() { command -v consul >/dev/null 2>&1 && consul version 2>/dev/null | head -n 1 | grep -q "v$VERSION"; }

# The address of the Debian archive that this machine already uses, so that mirrors and proxies keep working.
mirror() {
    cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources 2>/dev/null |
        grep -v '^ *#' | grep -oE 'https?://[^ ]+/debian/?( |$)' | head -n 1 | tr -d ' '
}

if installed; then
    say "$VERSION is installed"
    exit 0
fi
if ! command -v apt-get >/dev/null 2>&1 || [ "$(id -u)" != 0 ]; then
    say "needs Debian's apt-get and root"
    exit 2
fi
uri=$(mirror)
if [ -z "$uri" ]; then
    say "no Debian archive among apt's sources"
    exit 2
fi

cat >"$SOURCES" <<END
Types: deb
URIs: $uri
Suites: bullseye
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
END
cat >"$PIN" <<END
Package: *
Pin: release n=bullseye
Pin-Priority: 100
END

if ! apt-get update -qq -o Dir::Etc::sourcelist="$SOURCES" -o Dir::Etc::sourceparts=- -o APT::Get::List-Cleanup=0 ||
    ! DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends consul/bullseye >/dev/null; then
    rm -f "$SOURCES" "$PIN"
    say "$VERSION could not be installed"
    exit 1
fi
if ! installed; then
    say "the suite has another version than $VERSION: $(consul version | head -n 1)"
    exit 1
fi
say "$VERSION is installed now"
