#!/bin/sh
# source.sh DIR: fetch the pinned source archives through the machine's own apt configuration and unpack them in DIR.
# An archive is used only if its SHA-256 is the one written here.
set -eu
dir=$1
mkdir -p "$dir"
cd "$dir"

# name  archive's path in the Debian pool  SHA-256
pins='
wolfssl main/w/wolfssl/wolfssl_5.9.2.orig.tar.gz 2f4ef3d4fd387a9b3191d36a6316d69116c46ff69bb9583b6c82b36d7b8ca114
lwip main/l/lwip/lwip_2.2.1+dfsg1.orig.tar.xz 83729c274c499d3348e9fbbe043a3113f3fa8953e7efddc7c21c7fcbb1f2b7b1
'

fetch() { # name path sha256
	archive=$(basename "$2")
	if ! echo "$3  $archive" | sha256sum -c --status 2>/dev/null; then
		# shellcheck disable=SC2016 # apt's own placeholder
		for repo in $(apt-get indextargets --format '$(REPO_URI)' | sort -u | grep -v security); do
			echo "deps: fetching $archive"
			/usr/lib/apt/apt-helper download-file "${repo%/}/pool/$2" "$PWD/$archive.part" "SHA256:$3" \
				>fetch.log 2>&1 && mv "$archive.part" "$archive" && break
		done
	fi
	if ! echo "$3  $archive" | sha256sum -c --status 2>/dev/null; then
		echo "deps: $archive cannot be had with SHA-256 $3:" >&2
		cat fetch.log >&2
		exit 1
	fi
	rm -rf "$1.part" && mkdir "$1.part"
	tar -xf "$archive" -C "$1.part" --strip-components=1
	rm -rf "$1" && mv "$1.part" "$1"
}

echo "$pins" | while read -r name path sha; do
	[ -n "$name" ] || continue
	[ -e "$name/.pin-$sha" ] && continue
	fetch "$name" "$path" "$sha"
	touch "$name/.pin-$sha"
done
