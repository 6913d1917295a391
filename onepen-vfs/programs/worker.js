// As worker.py: `ready`, a line to start at, one line of JSON.
'use strict';

exports.options = () => {
  const given = Object.fromEntries(process.argv.slice(3).map((word) => word.split('=')));
  return [process.argv[2], given];
};

exports.many = (transactions, run) => {
  console.log('ready');
  process.stdin.once('data', () => {
    const errors = {};
    const times = [];
    let done = 0;
    const began = performance.now();
    for (let i = 0; i < transactions; i += 1) {
      const start = performance.now();
      try {
        run();
        done += 1;
      } catch (error) {
        const said = `${error.code}: ${error.message}`;
        errors[said] = (errors[said] || 0) + 1;
      }
      times.push(performance.now() - start);
    }
    times.sort((a, b) => a - b);
    console.log(
      JSON.stringify({
        done,
        errors,
        seconds: (performance.now() - began) / 1000,
        longest_ms: times[times.length - 1],
        p99_ms: times[Math.floor((times.length * 99) / 100)],
      }),
    );
    process.stdin.pause();
  });
};
