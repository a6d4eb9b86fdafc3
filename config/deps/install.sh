#!/bin/sh
# install.sh: install the Debian packages named in ./packages that are missing. Needs root only if one is.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
missing=
# shellcheck disable=SC2013 # one word a line
for p in $(sed 's/#.*//' "$here/packages"); do
	dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q '^install ok installed' ||
		missing="$missing $p"
done
[ -z "$missing" ] && exit 0
echo "deps: installing$missing"
if [ "$(id -u)" -ne 0 ]; then
	echo "deps: not root; install these packages first, or run 'make deps' as root" >&2
	exit 1
fi
export DEBIAN_FRONTEND=noninteractive
# Services that come with these packages (brokers, proxies) must not start by themselves on a build machine.
policy=/usr/sbin/policy-rc.d
made=
if [ ! -e "$policy" ]; then
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod 755 "$policy"
	made=1
fi
trap '[ -z "$made" ] || rm -f "$policy"' EXIT
trap 'exit 130' INT TERM
apt-get -q update
# shellcheck disable=SC2086 # a list of words
apt-get -q install -y --no-install-recommends $missing
