#!/bin/sh
# What a newcomer sees: a real pretrained model is adapted to a real data set, measured before and after, and asked
# three questions that it was never trained on. Usage: demo.sh [path of the lmworks command]
set -eu
lmworks=${1:-lmworks}
run=runs/demo

say() { printf '\n\033[1m$ %s\033[0m\n' "$*"; }
[ -t 1 ] && [ -z "${NO_COLOR:-}" ] || say() { printf '\n$ %s\n' "$*"; }

rm -rf "$run"
say lmworks data show smollm2-135m-instruct python-help --examples 2
"$lmworks" data show smollm2-135m-instruct python-help --examples 2

say lmworks tune smollm2-135m-instruct python-help --train.steps 48 --out "$run"
"$lmworks" tune smollm2-135m-instruct python-help --train.steps 48 --out "$run"

say lmworks chat "$run" --held-out 3
"$lmworks" chat "$run" --held-out 3

printf '\nThe report card as a page: %s\n' "$PWD/$run/report.html"
