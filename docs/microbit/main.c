/* A BBC micro:bit V1 reads one digit and shows the answer on its 25 lights. */
#include "digit.h"
#include "mnistq_net.h"

/* The chip's pins (nRF51 Series Reference Manual, GPIO): what is written to one of these
   addresses sets pins to 1, or to 0, or makes them outputs. */
#define OUTSET (*(volatile uint32_t *)0x50000508)
#define OUTCLR (*(volatile uint32_t *)0x5000050C)
#define DIRSET (*(volatile uint32_t *)0x50000518)

/* The lights are wired as three rows of nine: a row's pin, 13 to 15, gives current, and a
   column's pin, 4 to 12, takes it while it is 0. Light n of the 5 x 5 is here: */
static const uint8_t ROW[25] = {0, 1, 0, 1, 0, 2, 2, 2, 2, 2, 1, 0, 1,
                                2, 1, 0, 0, 0, 0, 0, 2, 1, 2, 1, 2};
static const uint8_t COLUMN[25] = {0, 3, 1, 4, 2, 3, 4, 5, 6, 7, 1, 8, 2,
                                   8, 0, 7, 6, 5, 4, 3, 2, 6, 0, 5, 1};

static const char *const PICTURES[10] = {
    " ### #   ##   ##   # ### ", "  #   ##    #    #   ### ", "###    #  ##  #    ##### ",
    "####     # ###     ##### ", "  ## # # #  # #####   #  ", "######    ####     ##### ",
    "  ##  #   #### #   # ### ", "#####   #   #   #   #    ", " ### #   # ### #   # ### ",
    " ### #   # ####   #  ##  "};

static uint8_t codes[MNISTQ_INPUTS], scores[MNISTQ_OUTPUTS];

static void show(const char *picture)
{
    OUTSET = 0x1FF0; /* all columns: dark */
    DIRSET = 0xFFF0;
    for (;;)
        for (uint32_t row = 0; row < 3; row++) { /* one row at a time, too fast to see */
            uint32_t columns = 0;
            for (uint32_t n = 0; n < 25; n++)
                if (ROW[n] == row && picture[n] == '#')
                    columns |= 1u << (4 + COLUMN[n]);
            OUTCLR = columns;
            OUTSET = 1u << (13 + row);
            for (volatile uint32_t wait = 0; wait < 2000; wait++) {
            }
            OUTCLR = 1u << (13 + row);
            OUTSET = columns;
        }
}

void start(void);

/* Runs first. RAM holds anything then, but nothing here reads it before it wrote it, except
   C's own promise that static arrays begin as 0. */
void start(void)
{
    extern uint8_t ram_begin, ram_end;
    for (uint8_t *byte = &ram_begin; byte < &ram_end; byte++)
        *(volatile uint8_t *)byte = 0;
    for (uint32_t n = 0; n < MNISTQ_INPUTS; n++)
        codes[n] = MNISTQ_PIXEL_TO_CODE[DIGIT[n]];
    mnistq_run(codes, scores);
    uint32_t best = 0;
    for (uint32_t n = 1; n < MNISTQ_OUTPUTS; n++)
        if (scores[n] > scores[best])
            best = n;
    show(PICTURES[best]);
}

/* The first two words of flash: where the stack begins, and where to start. */
typedef void (*entry)(void);
extern uint8_t stack_begin;
__attribute__((section(".vectors"), used)) static const entry vectors[] = {
    (entry)&stack_begin, start};
