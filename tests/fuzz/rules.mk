# Fuzz targets: each tests/fuzz/fuzz_WHAT.c is one, its seeds are in tests/fuzz/corpus/WHAT. A line `/* LINK: kube rotation */`
# names the libraries it needs besides core, as in unit tests. What a target defines itself (a server that lies, say) goes
# before what is in the libraries.
#   make fuzz          by libFuzzer, FUZZ_SECONDS each; needs clang. What it finds is in build/fuzz/found
#   make fuzz-replay   every seed, whole, cut and spoiled; with any compiler
#   make fuzz-json     (fuzz-replay-json) one of them

FUZZ_SECONDS ?= 20
FUZZ_TARGETS := $(patsubst tests/fuzz/fuzz_%.c,%,$(wildcard tests/fuzz/fuzz_*.c))
INC_tests/fuzz := $(INC_ALL) $(call may_see,controller/node tests/fuzz)

FLAGS_fuzz := -O1 -g -fno-omit-frame-pointer -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all
build/fuzz/%: CC := clang
build/fuzz/%: WARNINGS := $(filter-out -Wduplicated-cond -Wlogical-op,$(WARNINGS))

$(foreach d,$(FOLDERS) tests/fuzz,$(eval $(call objects,fuzz,$(d))))
$(foreach l,$(LIBRARIES),$(eval $(call library,fuzz,$(l))))
$(eval $(call objects,asan,tests/fuzz))
$(eval $(call strict,tests/fuzz,$(FLAGS_check_tests)))
build/fuzz/obj/pkg/kube/status_page.o: | $(STATUS_PAGE)

fuzz_linked = $(filter $(LIBRARIES),$(shell sed -n 's|^/\* LINK:\(.*\)\*/.*|\1|p' tests/fuzz/fuzz_$(1).c | head -n 1))
# fuzz_program CONFIG,WHAT,MORE OBJECTS,FLAGS
define fuzz_program
build/$(1)/fuzz/$(2): build/$(1)/obj/tests/fuzz/fuzz_$(2).o $(call objs,$(1),tests/fuzz/fuzz.c $(3)) \
		$(call archives,$(1),$(filter-out core,$(call fuzz_linked,$(2))) core)
	@mkdir -p $$(@D)
	$$(NICE) $$(CC) $$(FLAGS_$(1)) $(4) -o $$@ $$(filter %.o,$$^) $$(call grouped,$$^) -Wl,--as-needed \
		$$(call pkg,$$(LIBS_tests),--libs) -lpthread
endef
$(foreach t,$(FUZZ_TARGETS),$(eval $(call fuzz_program,fuzz,$(t),,-fsanitize=fuzzer)))
$(foreach t,$(FUZZ_TARGETS),$(eval $(call fuzz_program,asan,$(t),tests/fuzz/replay.c,)))

.PHONY: fuzz fuzz-replay $(FUZZ_TARGETS:%=fuzz-%) $(FUZZ_TARGETS:%=fuzz-replay-%)
fuzz: $(FUZZ_TARGETS:%=build/fuzz/fuzz/%) ## every parser of foreign bytes, FUZZ_SECONDS=20 each (clang)
	@+tests/fuzz/run fuzz $(FUZZ_SECONDS) $^
fuzz-replay: $(FUZZ_TARGETS:%=build/asan/fuzz/%) ## the fuzz targets' seeds, whole, cut and spoiled
	@+tests/fuzz/run replay $^
$(FUZZ_TARGETS:%=fuzz-%): fuzz-%: build/fuzz/fuzz/%
	@+tests/fuzz/run fuzz $(FUZZ_SECONDS) $<
$(FUZZ_TARGETS:%=fuzz-replay-%): fuzz-replay-%: build/asan/fuzz/%
	@+tests/fuzz/run replay $<

check-strict: $(call objs,check,$(wildcard tests/fuzz/*.c))
