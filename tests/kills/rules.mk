# tests/kills. First its program test_kills: cmocka like those of tests/unit, but with the node program inside, and with libc's calls that
# change files seen by calls.c: --wrap. The product's objects are those that are released (and thousands of cases take a minute so).
INC_tests/kills := $(INC_tests/unit) -iquote tests/kills
SRC_failpoints := tests/kills/failpoint.c tests/kills/failpoint_node.c tests/kills/point.c
SRC_kills := $(filter-out $(SRC_failpoints),$(wildcard tests/kills/*.c))
wrapped = $(addprefix -Wl$(comma)--wrap=,$(1))

$(eval $(call objects,release,tests/kills))
$(eval $(call strict,tests/kills,$(FLAGS_check_tests)))
check-strict: $(call objs,check,$(wildcard tests/kills/*.c))

build/release/obj/tests/kills/node_main.o: controller/node/main.c Makefile | $(CONTRACT)
	@mkdir -p $(@D)
	$(COMPILE) -Dmain=node_main -Wno-missing-prototypes $(FLAGS_release) $(INC_controller/node) $(PKG_CFLAGS) -MMD -MP -c $< -o $@

build/release/tests/test_kills: $(call objs,release,$(SRC_kills)) build/release/obj/tests/kills/node_main.o \
		$(call archives,release,support node kube rotation core)
	@mkdir -p $(@D)
	$(NICE) $(CC) $(FLAGS_release) -o $@ $(filter %.o,$^) $(call grouped,$^) $(call wrapped,open mkostemp write fchmod fchown futimens \
		fsync rename link unlink symlink mkdir rmdir nanosleep poll clock_monotonic_ms process_find process_alive \
		process_pod_alive process_terminate process_each_container) -Wl,--as-needed $(call pkg,$(LIBS_tests),--libs) -lpthread

.PHONY: test_kills test_no_failpoints
test_kills: build/release/tests/test_kills
	@UNIT_TIMEOUT=1200 $(NICE) tests/unit/run $<
test_no_failpoints: $(PROGRAMS) $(call objs,release,$(SRC_failpoints))
	@tests/kills/no-failpoints $(PROGRAMS) -- $(filter %.o,$^)
unit: test_kills test_no_failpoints

# Then the programs with failpoints, for an image of tests/kills/run: `make image FAILPOINTS=1`.
ifneq ($(FAILPOINTS),)
FAILPOINT_OBJS = $(call objs,release,$(1) tests/kills/point.c)
build/release/certrotation-controller: $(call FAILPOINT_OBJS,tests/kills/failpoint.c)
build/release/certrotation-controller: HARDENED_LINK += $(call wrapped,kube_create kube_update kube_patch kube_delete kube_patch_all lease_start)
build/release/certrotation-node: $(call FAILPOINT_OBJS,tests/kills/failpoint_node.c)
build/release/certrotation-node: HARDENED_LINK += $(call wrapped,file_replace file_rename file_remove file_wipe file_rmdir file_symlink \
	file_mkdir file_backup process_terminate service_restart clock_now_ms)
endif
