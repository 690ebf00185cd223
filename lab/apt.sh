# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# shellcheck disable=SC2154 # lab/common.sh sets what is read here
# Debian's packages, downloaded and unpacked but never installed, by apt with
# settings and lists of its own under out/apt: nothing of the host's apt changes, and
# root is not needed. Sourced after lab/common.sh.

APT=()
SUITE=

# For apt_uris: packages with all that they depend on, as if nothing were installed.
# shellcheck disable=SC2034 # those who source this use it
CLOSURE="--no-install-recommends -o Dir::State::status=/dev/null -y install"

host_suite()
{
	# shellcheck source=/dev/null
	(. /etc/os-release && echo "${VERSION_CODENAME:-}")
}

# Prints the sources of suite $1, from wherever the host's apt gets its own release.
apt_sources()
{
	local keyring=/usr/share/keyrings/debian-archive-keyring.gpg host base suffix type

	host=$(host_suite)
	apt-get --print-uris update |
	sed -nE "s,^'(.*)/dists/(${host:-none}|stable|oldstable)(-[a-z]+)?/InRelease' .*,\1 \3,p" |
	while read -r base suffix; do
		for type in deb deb-src; do
			echo "$type [signed-by=$keyring] $base $1$suffix main"
		done
	done
}

# apt_suite SUITE: from here on $APT has the options with which apt reads that suite
apt_suite()
{
	local dir=$OUT/apt/$1

	command -v apt-get >/dev/null ||
		die "there is no apt-get; nothing was downloaded; use Debian 12 or 13"
	SUITE=$1
	APT=(-q -o Dir::Etc::sourcelist="$dir/sources.list" -o Dir::Etc::sourceparts=-
	     -o Dir::State::Lists="$dir/lists" -o Dir::Cache="$dir/cache"
	     -o APT::Sandbox::User=root -o Acquire::Languages=none
	     -o Acquire::ForceHash=SHA256)
	[ -e "$dir/.complete" ] || apt_update || :
}

# Reads the suite's lists anew. Without a network the old ones stay.
apt_update()
{
	local dir=$OUT/apt/$SUITE log=$OUT/log/apt-$SUITE.log

	mkdir -p "$dir/lists/partial" "$dir/cache/archives/partial"
	apt_sources "$SUITE" >"$dir/sources.list"
	run_step "read the package lists of Debian's $SUITE" "$log" \
		apt-get "${APT[@]}" -o APT::Update::Error-Mode=any update || return
	touch "$dir/.complete"
}

# apt_uris COMMAND...: what apt-get would download for it, "URL FILE SUM" a line
apt_uris()
{
	apt-get "${APT[@]}" --print-uris "$@" 2>/dev/null |
		sed -nE "s/^'([^']*)' ([^ ]*) [0-9]* (SHA256:[0-9a-f]+)$/\1 \2 \3/p"
}

# Downloads what the file "uris" in directory $1 lists as apt_uris does, checked
# against the sums. SHA256SUMS comes last.
download()
{
	local url file sum files=()

	cd "$1" || return
	while read -r url file sum; do
		files+=("$url" "$file" "$sum")
		printf '%s  %s\n' "${sum#SHA256:}" "$file" >>sums
	done <uris
	/usr/lib/apt/apt-helper "${APT[@]}" download-file "${files[@]}"
	sha256sum -c sums
	mv sums SHA256SUMS
}

# verified DIR: whether it holds what its sums vouch for
verified()
{
	[ -f "$1/SHA256SUMS" ] && (cd "$1" && sha256sum --quiet -c SHA256SUMS >/dev/null 2>&1)
}

# fetch_set TITLE DIR MEGABYTES COMMAND...: what apt_uris says of the commands, each
# one word of options and packages, in DIR of the cache. False if it cannot be had,
# which may be for lists that are old: out/log/fetch.log says why.
fetch_set()
{
	local title=$1 dir=$2 part=$CACHE/.part.$$ command old

	# What runs that were interrupted have left.
	for old in "$CACHE"/.part.*; do
		[ -e "/proc/${old##*.}" ] || rm -rf "$old"
	done
	need_space "$CACHE" "$3"
	rm -rf "$part"
	mkdir -p "$part"
	for command in "${@:4}"; do
		# shellcheck disable=SC2086 # words are wanted
		apt_uris $command >>"$part/uris"
	done
	if [ -s "$part/uris" ] && run_step "download $title" "$OUT/log/fetch.log" download "$part"; then
		install_dir "$part" "$dir"
		return
	fi
	rm -rf "$part"
	return 1
}

# have SUITE SET TITLE MEGABYTES COMMAND...: what fetch_set gets is in SET of the cache,
# downloaded if it is not there yet
have()
{
	local suite=$1 dir=$CACHE/$2
	shift 2

	! verified "$dir" || return 0
	apt_suite "$suite"
	fetch_set "$1" "$dir" "${@:2}" || { apt_update && fetch_set "$1" "$dir" "${@:2}"; } ||
		die "$1 of Debian's $suite cannot be downloaded: $(grep -m1 -E '^E:|FAILED' "$OUT/log/fetch.log" || echo "no reason given"); nothing was changed; check the network, then try again (logs: $OUT/log/apt-$suite.log, $OUT/log/fetch.log)"
}

# unpack_debs FROM TO: the packages in FROM over each other
unpack_debs()
{
	local deb

	for deb in "$1"/*.deb; do
		dpkg-deb -x "$deb" "$2"
	done
}
