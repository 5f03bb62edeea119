# Two targets matter: test and demo. Both set up what they need and say so.
# What installs other releases of Nova, and seldom fails, is in test-more;
# test-node has a machine of its own, takes a third of an hour, and wants root.

# The first Python that some Nova supports.
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11 \
	python3.10; do \
	$$python -c 'import sys; \
	sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' \
	2>/dev/null && echo $$python && break; done)
TOX = .venv/bin/tox

# Where both are asked for, Kubernetes is built once for both.
ifneq (,$(filter test-node,$(MAKECMDGOALS)))
export NOVA_K8S_BUILD_NODE = 1
endif

MORE ?= oldest,nova32,nova33,install
# An older Nova needs an older Python, which not every machine has: tox says so
# and goes on. In CI nothing may be missing.
OLDER = --skip-missing-interpreters $(if $(CI),false,true)

.PHONY: test test-more test-node demo system clean

test: system $(TOX)
	$(TOX) run

test-more: system $(TOX)
	$(TOX) run $(OLDER) -e $(MORE)

test-node: system $(TOX)
	$(TOX) run -e node

demo: system
	tests/demo/run

system:
	@tools/setup-system.sh

$(TOX): | system
	@test -n "$(PYTHON)" || \
		{ echo 'No Python 3.10 to 3.13 was found.' >&2; exit 1; }
	@echo 'Creating a virtual environment for tox in .venv'
	$(PYTHON) -m venv --clear .venv
	.venv/bin/pip install --quiet 'tox>=4.28,<5'

clean:
	rm -rf .tox .venv .stestr .coverage* .hypothesis build cover dist *.egg-info
