# shellcheck shell=bash
# Sourced by the scripts here: packages of any Debian release, from the mirror that this machine has configured.
# Nothing is installed, and nothing of the machine's own apt is touched.

# debian DIRECTORY SUITE TYPE...: sets the array `apt`, an apt-get that keeps everything under DIRECTORY and knows
# SUITE only; TYPE is deb or deb-src. Returns 1 when no Debian mirror is configured or answers.
debian() {
	local work=$1 suite=$2 mirror keyring=/usr/share/keyrings/debian-archive-keyring.gpg
	shift 2
	mkdir -p "$work/lists/partial" "$work/archives/partial"
	# apt drops privileges for its downloads.
	chmod 0755 "$work"
	local own=(-qq -o "Dir::State::Lists=$work/lists" -o "Dir::Cache=$work" -o APT::Sandbox::User=root)
	# apt-get fills in the words with a $.
	# shellcheck disable=SC2016
	local which=(indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian')
	mirror=$(apt-get "${which[@]}" | head -n 1)
	if [ -z "$mirror" ]; then
		# Whose mirror it is stands in its lists, and an image often comes without them.
		apt-get "${own[@]}" update >&2 || true
		mirror=$(apt-get "${own[@]}" "${which[@]}" | head -n 1)
	fi
	if [ -z "$mirror" ]; then
		return 1
	fi
	printf "%s [signed-by=$keyring] $mirror $suite main\n" "$@" >"$work/sources.list"
	apt=("${own[@]}" -o "Dir::Etc::SourceList=$work/sources.list" -o Dir::Etc::SourceParts=/dev/null)
	apt-get "${apt[@]}" update >&2
}
