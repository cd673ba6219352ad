/* What a Cortex-M needs to run the network once, and nothing more. */
#include "mnistq_net.h"

uint8_t input_codes[MNISTQ_INPUTS], output_codes[MNISTQ_OUTPUTS];

void stop(void) __attribute__((noinline));
void reset(void);

void stop(void)
{
    for (;;) {
    }
}

void reset(void)
{
    mnistq_run(input_codes, output_codes);
    stop();
}

/* Where the stack begins, and what runs first. */
typedef void (*entry)(void);
extern uint8_t end_of_ram;
__attribute__((section(".vectors"), used)) static const entry vectors[] = {
    (entry)&end_of_ram, reset};
