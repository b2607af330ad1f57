# Certificate rotation for Kubernetes. `make help` says what there is.
#
# Include paths are the rule about who may know whom: a folder compiles with the paths of INC_<folder> and no others,
# so an include that goes the wrong way does not compile. (-iquote, not -I, for a library's <yaml.h> is not ours.)
# Files that do not exist yet are simply not built.

ifeq ($(origin CC),default)
CC := gcc
endif
NICE     ?= nice -n 10
VERSION  ?= 0.1.0
CERTROTATION_IMAGE ?= certrotation:dev

.DEFAULT_GOAL := build
.DELETE_ON_ERROR:
.SECONDARY:
MAKEFLAGS += --no-builtin-rules --output-sync=target

# --- Folders and who may include whom ----------------------------------------------------------------------------------

FOLDERS := pkg/core pkg/kube controller/rotation controller/consumers controller/engine controller/node controller/node/standalone \
	controller
LIBRARIES := core kube rotation consumers engine node

DIR_core      := pkg/core
DIR_kube      := pkg/kube
DIR_rotation  := controller/rotation
DIR_consumers := controller/consumers
DIR_engine    := controller/engine
DIR_node      := controller/node

# contract.h is all that the controller may see of the node program.
CONTRACT := build/include/contract.h
may_see = $(addprefix -iquote ,$(1))
INC_ALL  := $(call may_see,pkg/core pkg/kube controller/rotation controller/consumers controller/engine build/include)
INC_pkg/core             := $(call may_see,pkg/core)
INC_pkg/kube             := $(call may_see,pkg/core pkg/kube)
INC_controller/rotation  := $(call may_see,pkg/core controller/rotation)
INC_controller/node      := $(call may_see,pkg/core pkg/kube controller/rotation controller/node)
INC_controller/consumers := $(INC_ALL)
INC_controller/engine    := $(INC_ALL)
INC_controller           := $(INC_ALL)
INC_tests/unit           := $(INC_ALL) $(call may_see,controller/node tests/unit)

# Two ways to do the same; a program has one of each pair.
NODE_LINKED := $(addprefix controller/node/,remote_curl.c remote_etcd.c remote_front_proxy.c service_dbus.c gate_nft.c)
NODE_ALONE  := $(addprefix controller/node/,remote_none.c service_systemctl.c gate_none.c)

SRC_core      := $(wildcard pkg/core/*.c)
SRC_kube      := $(wildcard pkg/kube/*.c)
SRC_rotation  := $(wildcard controller/rotation/*.c)
SRC_consumers := $(wildcard controller/consumers/*.c)
SRC_engine    := $(wildcard controller/engine/*.c)
SRC_node      := $(filter-out controller/node/main.c $(NODE_ALONE),$(wildcard controller/node/*.c))
SRC_alone     := $(filter-out controller/node/main.c $(NODE_LINKED),$(wildcard controller/node/*.c))
SRC_ALL       := $(foreach d,$(FOLDERS),$(wildcard $(d)/*.c))
HEADERS       := $(foreach d,$(FOLDERS),$(wildcard $(d)/*.h))
TESTS         := $(patsubst tests/unit/%.c,%,$(wildcard tests/unit/test_*.c))
SRC_support   := $(filter-out tests/unit/test_%,$(wildcard tests/unit/*.c))

# --- Flags -------------------------------------------------------------------------------------------------------------

cc_option = $(shell $(CC) -Werror $(1) -x c -c /dev/null -o /dev/null 2>/dev/null && echo '$(1)')

DIALECT  := -std=c17 -D_POSIX_C_SOURCE=200809L -DCERTROTATION_VERSION='"$(VERSION)"'
WARNINGS := -Wall -Wextra -Wshadow -Wconversion -Wundef -Wvla -Wformat=2 -Wstrict-prototypes -Wmissing-prototypes \
	-Wswitch-enum -Wwrite-strings -Wimplicit-fallthrough -Wduplicated-cond -Wlogical-op -Wnull-dereference \
	-Wdouble-promotion
HARDENING := -D_FORTIFY_SOURCE=3 -fstack-protector-strong -fno-delete-null-pointer-checks -fno-strict-overflow \
	-fno-strict-aliasing -fPIE $(call cc_option,-fstack-clash-protection) $(call cc_option,-fcf-protection=full) \
	$(call cc_option,-mbranch-protection=standard) $(call cc_option,-ftrivial-auto-var-init=zero) \
	$(call cc_option,-fstrict-flex-arrays=3) $(call cc_option,-fzero-init-padding-bits=all)
HARDENED_LINK := -pie -Wl,-z,relro,-z,now,-z,noexecstack,-z,nodlopen -Wl,--as-needed

FLAGS_release := -O2 -g $(HARDENING)
FLAGS_asan    := -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all
FLAGS_tsan    := -O1 -g -fno-omit-frame-pointer -fsanitize=thread

LIBS_controller := libcurl libcjson openssl libwebsockets libuv yaml-0.1
LIBS_node       := libcurl libcjson openssl yaml-0.1 libsystemd libnftables
LIBS_tests      := cmocka libcurl libcjson openssl libwebsockets libuv yaml-0.1 libsystemd libnftables
comma := ,
pkg = $(shell pkg-config $(2) $(1))
# Only cJSON's and the likes' include folders matter here; Debian has them all in /usr/include.
PKG_CFLAGS := $(call pkg,$(LIBS_tests),--cflags)

# What is made, a line each; the commands themselves with V=1.
quiet = $(if $(V),,@printf '  %-6s %s\n' $(1) $(2); )
COMPILE = $(NICE) $(CC) $(DIALECT) $(WARNINGS) $(CPPFLAGS) $(CFLAGS)

# --- Help --------------------------------------------------------------------------------------------------------------

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(filter Makefile %.mk,$(MAKEFILE_LIST))

# --- Building ----------------------------------------------------------------------------------------------------------

PROGRAMS := $(if $(wildcard controller/main.c),build/release/certrotation-controller) \
	$(if $(wildcard controller/node/main.c),build/release/certrotation-node)

.PHONY: build libraries node-static packages
build: libraries $(PROGRAMS) ## the programs, into build/release
packages: ## install the Debian packages that building and testing need (as root)
	tests/packages

$(CONTRACT): controller/node/contract.h
	@mkdir -p $(@D)
	@printf '#include "../../controller/node/contract.h"\n' >$@

# objects CONFIG,FOLDER: build/CONFIG/obj/FOLDER/%.o from FOLDER/%.c
define objects
build/$(1)/obj/$(2)/%.o: $(2)/%.c Makefile | $$(CONTRACT)
	@mkdir -p $$(@D)
	$$(call quiet,CC,$$@)$$(COMPILE) $$(FLAGS_$(1)) $$(INC_$(2)) $$(PKG_CFLAGS) -MMD -MP -c $$< -o $$@
endef
$(foreach c,release asan tsan,$(foreach d,$(FOLDERS) tests/unit,$(eval $(call objects,$(c),$(d)))))

# library CONFIG,NAME: build/CONFIG/libNAME.a
objs = $(patsubst %.c,build/$(1)/obj/%.o,$(2))
define library
build/$(1)/lib$(2).a: $$(call objs,$(1),$$(SRC_$(2)))
	@mkdir -p $$(@D)
	@rm -f $$@
	$$(call quiet,AR,$$@)ar rcsD $$@ $$^
endef
$(foreach c,release asan tsan,$(foreach l,$(LIBRARIES) support,$(eval $(call library,$(c),$(l)))))

libraries: $(foreach l,$(LIBRARIES),$(if $(SRC_$(l)),build/release/lib$(l).a))

archives = $(foreach l,$(2),$(if $(SRC_$(l)),build/$(1)/lib$(l).a))
grouped = -Wl,--start-group $(filter %.a,$(1)) -Wl,--end-group

build/release/certrotation-controller: build/release/obj/controller/main.o \
		$(call objs,release,$(wildcard controller/node/contract.c)) \
		$(call archives,release,engine consumers rotation kube core)
	$(call quiet,LINK,$@)$(NICE) $(CC) $(FLAGS_release) $(HARDENED_LINK) -o $@ $(filter %.o,$^) $(call grouped,$^) \
		$(call pkg,$(LIBS_controller),--libs) -lpthread

NODE_KUBE := $(wildcard pkg/kube/http.c pkg/kube/client.c pkg/kube/past.c pkg/kube/kubeconfig.c)
build/release/certrotation-node: $(call objs,release,$(wildcard controller/node/main.c) $(SRC_node) \
		$(wildcard controller/rotation/facet.c controller/rotation/authority.c) $(NODE_KUBE)) build/release/libcore.a
	$(call quiet,LINK,$@)$(NICE) $(CC) $(FLAGS_release) $(HARDENED_LINK) -o $@ $^ $(call pkg,$(LIBS_node),--libs)

# For a node whose API server is down: one file that needs nothing of the node's but a kernel. Debian ships libcrypto and
# libyaml as archives, but cJSON only as a shared library; see controller/node/standalone/launch.c for what that means.
node-static: build/release/certrotation-node-static ## the node program in one file that runs on any distribution
ALONE := build/release/standalone
$(ALONE)/certrotation-node: $(call objs,release,$(wildcard controller/node/main.c) $(SRC_alone) \
		$(wildcard controller/rotation/facet.c controller/rotation/authority.c pkg/kube/kubeconfig.c)) build/release/libcore.a
	@mkdir -p $(@D)
	$(call quiet,LINK,$@)$(NICE) $(CC) $(FLAGS_release) $(HARDENED_LINK) -o $@ $^ -Wl,-Bstatic -lcrypto -lyaml -Wl,-Bdynamic -lcjson
	strip $@
# The loader first, the program last: as launch.c expects them.
$(ALONE)/parts.S: $(ALONE)/certrotation-node
	@ldd $< | sed -n 's|^.* => \(/.*\) (0x.*|\1|p' >$(ALONE)/libraries && test -s $(ALONE)/libraries
	@! ldd $< | grep 'not found'
	@files="$$(ldd $< | sed -n 's|^[[:space:]]*\(/.*\) (0x.*|\1|p') $$(cat $(ALONE)/libraries) $<"; \
	{ echo '.section .note.GNU-stack,"",%progbits'; i=0; for f in $$files; do i=$$((i + 1)); \
		echo ".section .rodata"; echo ".balign 16"; echo "start_$$i: .incbin \"$$f\""; echo "end_$$i:"; done; \
	echo ".section .data.rel.ro,\"aw\""; echo ".balign 8"; echo ".global parts"; echo "parts:"; \
	for n in $$(seq $$i); do echo ".quad start_$$n, end_$$n"; done; echo ".quad 0, 0"; } >$@
build/release/certrotation-node-static: build/release/obj/controller/node/standalone/launch.o $(ALONE)/parts.S
	$(call quiet,LINK,$@)$(NICE) $(CC) $(FLAGS_release) -static-pie -Wl,-z,relro,-z,now,-z,noexecstack -o $@ $^
	@$@ --version >/dev/null

include pkg/kube/rules.mk

# --- Unit tests --------------------------------------------------------------------------------------------------------
# Every tests/unit/test_*.c is one cmocka program. A line `/* LINK: kube rotation */` in it names the libraries it needs
# besides core; other files in tests/unit are linked into all of them. All is built with ASan and UBSan.

linked = $(filter $(LIBRARIES),$(shell sed -n 's|^/\* LINK:\(.*\)\*/.*|\1|p' tests/unit/$(1).c | head -n 1))
define unit_test
build/$(1)/tests/$(2): build/$(1)/obj/tests/unit/$(2).o $(call archives,$(1),support $(filter-out core,$(call linked,$(2))) core)
	@mkdir -p $$(@D)
	$$(call quiet,LINK,$$@)$$(NICE) $$(CC) $$(FLAGS_$(1)) -o $$@ $$(filter %.o,$$^) $$(call grouped,$$^) -Wl,--as-needed \
		$$(call pkg,$$(LIBS_tests),--libs) -lpthread
endef
$(foreach t,$(TESTS),$(eval $(call unit_test,asan,$(t)))$(eval $(call unit_test,tsan,$(t))))

.PHONY: unit $(TESTS)
unit: $(TESTS) ## all unit tests, with ASan and UBSan; `make test_json` runs one
	@echo "unit: $(words $(TESTS)) programs passed"
$(TESTS): %: build/asan/tests/%
	@$(NICE) tests/unit/run $<

# --- Checks ------------------------------------------------------------------------------------------------------------

.PHONY: check check-strict check-headers check-layers check-tidy check-cppcheck
check: check-strict check-headers check-layers check-tidy check-cppcheck ## warnings as errors, analysers, include rules
	@echo "check: clean"

FLAGS_check := -O2 -Werror -fanalyzer -D_FORTIFY_SOURCE=2
# No -Wnull-dereference: gcc does not know that cmocka's assert_non_null ends the test.
FLAGS_check_tests := -O2 -Werror -D_FORTIFY_SOURCE=2 -Wno-null-dereference
define strict
build/check/obj/$(1)/%.o: $(1)/%.c Makefile | $$(CONTRACT)
	@mkdir -p $$(@D)
	$$(call quiet,CC,$$@)$$(COMPILE) $(2) $$(INC_$(1)) $$(PKG_CFLAGS) -MMD -MP -c $$< -o $$@
endef
$(foreach d,$(FOLDERS),$(eval $(call strict,$(d),$(FLAGS_check))))
$(eval $(call strict,tests/unit,$(FLAGS_check_tests)))
check-strict: $(call objs,check,$(SRC_ALL) $(wildcard tests/unit/*.c))

# Each header compiles alone.
folder_of = $(patsubst %/,%,$(dir $(1)))
define header_alone
build/check/headers/$(1).ok: $(1) $(HEADERS) | $$(CONTRACT)
	@mkdir -p $$(@D)
	$$(call quiet,CC,$$@)$$(COMPILE) -Werror -Wno-unused-macros $$(INC_$(call folder_of,$(1))) -fsyntax-only -include $(1) -x c /dev/null
	@touch $$@
endef
$(foreach h,$(HEADERS),$(eval $(call header_alone,$(h))))
check-headers: $(patsubst %,build/check/headers/%.ok,$(HEADERS))

check-layers:
	tests/unit/layers

define tidy
build/check/tidy/$(1)/%.ok: $(1)/%.c build/check/obj/$(1)/%.o .clang-tidy
	@mkdir -p $$(@D)
	$$(call quiet,TIDY,$$<)$$(NICE) clang-tidy --quiet --warnings-as-errors='*' $$< -- $$(DIALECT) $$(INC_$(1)) $$(PKG_CFLAGS) 2>$$@.log || \
		{ cat $$@.log; exit 1; }
	@touch $$@
endef
$(foreach d,$(FOLDERS),$(eval $(call tidy,$(d))))
check-tidy: $(patsubst %.c,build/check/tidy/%.ok,$(SRC_ALL))

# varFuncNullUB: POSIX and gcc define NULL as a pointer, and __attribute__((sentinel)) is checked by gcc.
define cppcheck
build/check/cppcheck/$(1)/%.ok: $(1)/%.c build/check/obj/$(1)/%.o
	@mkdir -p $$(@D)
	$$(call quiet,CHECK,$$<)$$(NICE) cppcheck --quiet --std=c11 --enable=warning,portability --inline-suppr --error-exitcode=1 \
		--suppress=missingIncludeSystem --suppress=varFuncNullUB -D_POSIX_C_SOURCE=200809L \
		$$(subst -iquote ,-I,$$(INC_$(1))) $$<
	@touch $$@
endef
$(foreach d,$(FOLDERS),$(eval $(call cppcheck,$(d))))
check-cppcheck: $(patsubst %.c,build/check/cppcheck/%.ok,$(SRC_ALL))

# the image is built without tests/
-include tests/fuzz/rules.mk
-include tests/kills/rules.mk

# --- Everything else ---------------------------------------------------------------------------------------------------

.PHONY: image test test-all bench demo clean
BUILD_ARGS = $(if $(FAILPOINTS),--build-arg FAILPOINTS=$(FAILPOINTS))
image: ## the container image, certrotation:dev
	@if docker buildx version >/dev/null 2>&1; then docker build $(BUILD_ARGS) -t $(CERTROTATION_IMAGE) .; \
		else DOCKER_BUILDKIT=0 docker build $(BUILD_ARGS) -t $(CERTROTATION_IMAGE) .; fi
test: ## the tests that every change must pass, real clusters included
	tests/run
test-all: ## every test there is, the long ones included; TEST_RESUME=1: without what has passed on this very code
	tests/run --all
bench: ## measure speed, memory and failed requests
	tests/bench/run
demo: ## a cluster, a rotation, to watch
	tests/demo/run
clean: ## remove build/
	rm -rf build

-include $(shell find build -name '*.d' 2>/dev/null)
